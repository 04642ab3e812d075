"""The viewer's server over a folder that the real ledger wrote: what it answers, and what it refuses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from shown_runs import MARKUP, shown_trajectory, write_shown

from agentrl.errors import ConfigError, StoreError
from agentrl.pictures import picture
from agentrl.store.ledger import Ledger
from agentrl.types import Task
from agentrl.view.collection import Collection
from agentrl.view.server import listen, make_app

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (60).to_bytes(4, "big") + (40).to_bytes(4, "big")
HOME = "http://127.0.0.1:8000"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    write_shown(tmp_path / "run")
    async with served(tmp_path, tmp_path / "run") as found:
        yield found


def served(page: Path, *folders: Path) -> httpx.AsyncClient:
    app = make_app(Collection(folders), page)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HOME)


async def asked(client: httpx.AsyncClient, address: str, status: int = 200) -> Any:
    answer = await client.get(address)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_the_overview_says_what_rose_with_its_interval(client: httpx.AsyncClient) -> None:
    found = await asked(client, "/api/overview")
    assert (found["kind"], found["title"], found["episodes"], found["live"]) == ("run", "shown", 5, False)
    assert found["verdict"].startswith("Success rose from 10.0% [2.8, 30.1] to 90.0% [69.9, 97.2] on 20 held-out tasks")
    assert "+80.0 points" in found["verdict"]
    assert found["outcomes"] == {"wrong_answer": 3, "success": 1, "environment": 1}
    curves = {curve["name"]: curve for curve in found["curves"]}
    assert curves["held_out_success_1"]["x"] == [0, 1] and curves["held_out_success_1"]["y"] == [0.1, 0.9]
    assert (curves["reward"]["low"], curves["reward"]["high"]) == ([0.1, 0.2], [0.4, 0.8])
    settings = {one["key"]: one for one in found["settings"]}
    assert settings["rollout.group_size"] == {
        "key": "rollout.group_size", "value": 3, "default": 8, "changed": True, "baseline": None,
    }  # fmt: skip
    assert found["command"].startswith("agentrl train ") and "config.toml" in found["command"]


async def test_an_episode_is_shown_with_its_calls_tokens_group_and_neighbours(client: httpx.AsyncClient) -> None:
    found = await asked(client, "/api/episode/g1-0")
    first, last = found["steps"]
    assert first["calls"][0]["name"] == "open" and first["calls"][0]["result"] == f"room 1 {MARKUP}"
    assert last["calls"][0]["result"] == f"the end {MARKUP}" and found["final"][0]["content"] == f"the end {MARKUP}"
    assert first["seconds"] == {"waiting": 0.1, "model": 0.2, "environment": 0.3, "reward": 0.4}
    tokens = [(t["text"], t["trained"], t["advantage"], t["mismatch"]) for t in first["tokens"] + last["tokens"]]
    assert tokens == [
        ("go", True, 0.5, 0.25),
        ("north", False, 0.5, 0.0),
        ("go", True, 1.5, None),
        ("north", True, 2.5, 0.5),
    ]
    assert (first["tokens"][1]["logprob"], first["tokens"][1]["version"], first["prompt"]) == (-1.5, 7, "<end> door")
    group = {member["id"]: member for member in found["group"]}
    assert group["g1-0"]["step_advantages"] == [0.5, 2.0] and group["g1-1"]["step_advantages"] == [None, None]
    assert group["g1-2"]["step_ids"] == ["g1-0/0", "g1-2/1"] and group["g1-2"]["forked_from"] == "g1-0/0"
    assert (found["previous"], found["next"]) == (None, "g1-1")
    assert list(group) == ["g1-0", "g1-1", "g1-2"]
    branch = await asked(client, "/api/episode/g1-2")
    assert [step["shared"] for step in branch["steps"]] == [True, False]


@pytest.mark.parametrize(
    ("asked_for", "names"),
    [
        ("", ["g1-0", "g1-1", "g2-0", "g2-1", "g1-2"]),
        ("sort=-reward&limit=1", ["g1-0"]),
        ("limit=2&offset=3", ["g2-1", "g1-2"]),
        ("outcome=success,environment", ["g1-0", "g2-1"]),
        ("batch=2", ["g2-0"]),
        ("group=g1&task=task-g1", ["g1-0", "g1-1", "g1-2"]),
        ("search=100%25%20OF", ["g2-1"]),
        ("search=_", ["g1-1", "g2-0", "g1-2"]),
        ("search=onerror", []),
        ("search=ONERROR&inside=1&group=g2", ["g2-1", "g2-0"]),
        ("search=prompt&inside=1", []),
        ("search=%27%20OR%201%3D1%20--", []),
    ],
)
async def test_episodes_are_filtered_sorted_paged_and_searched(
    client: httpx.AsyncClient, asked_for: str, names: list[str]
) -> None:
    found = await asked(client, f"/api/episodes?{asked_for}")
    assert [line["id"] for line in found["lines"]] == names and found["cut"] is False


@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("/api/episode/g9-9", 404, "holds no episode 'g9-9'"),
        ("/api/episode/..%2F..%2F..%2Fetc%2Fpasswd", 404, "holds no episode"),
        ("/api/episode/g1-0?run=7", 400, "shows 1 folders"),
        ("/api/episodes?limit=lots", 400, "Expected `int`"),
        ("/api/episodes?limit=1000000", 400, "1 to 1000 lines"),
        ("/api/episodes?sort=payload;drop", 400, "not sorted by 'payload;drop'"),
        ("/api/image/..%2Fconfig.toml", 404, ""),
        ("/api/image/config.toml", 404, "no image 'config.toml'"),
        ("/page/config.toml", 404, "no file 'config.toml'"),
        ("/page/..%2Frun%2Fconfig.toml", 404, ""),
    ],
)
async def test_what_is_not_there_is_refused_in_words(
    client: httpx.AsyncClient, address: str, status: int, words: str
) -> None:
    answer = await client.get(address)
    assert answer.status_code == status and words in answer.text and "tiny" not in answer.text


async def test_another_host_is_refused_and_every_answer_carries_the_policy(client: httpx.AsyncClient) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example:8000", "", "[::2]:80"):
        assert (await client.get("/api/overview", headers={"host": host})).status_code == 400
    for host in ("localhost:1", "127.0.0.1", "[::1]:8000"):
        answer = await client.get("/api/overview", headers={"host": host})
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert "set-cookie" not in answer.headers and "access-control-allow-origin" not in answer.headers
    assert (await client.post("/api/overview")).status_code == 405


def test_other_machines_cannot_be_served() -> None:
    with pytest.raises(ConfigError, match=r"--host 0\.0\.0\.0 would show the episodes to other machines"):
        listen("0.0.0.0", 0)
    with listen("127.0.0.1", 0) as first, pytest.raises(ConfigError, match="cannot be had"):
        listen("127.0.0.1", first.getsockname()[1])


async def test_files_of_the_page_are_served_by_name(tmp_path: Path) -> None:
    write_shown(tmp_path / "run")
    (tmp_path / "index.html").write_text("<p>page</p>")
    (tmp_path / "app.js").write_text("1")
    async with served(tmp_path, tmp_path / "run") as client:
        page, script = await client.get("/"), await client.get("/page/app.js")
    assert (page.text, page.headers["content-type"]) == ("<p>page</p>", "text/html; charset=utf-8")
    assert script.headers["content-type"].startswith("text/javascript")


async def test_a_run_is_shown_while_it_is_written(tmp_path: Path) -> None:
    write_shown(tmp_path / "run")
    async with served(tmp_path, tmp_path / "run") as client:
        assert (await asked(client, "/api/revision"))["live"] is False
        before = await asked(client, "/api/overview")
        with Ledger(tmp_path / "run") as ledger:
            ledger.issue(2, "g3", Task("task-g3", "keydoor"), ["g3-0", "g3-1"])
            ledger.finish(shown_trajectory("g3-0", "g3", reward=1.0))
            moved = await asked(client, "/api/revision")
            now = await asked(client, "/api/overview")
            assert moved["live"] is True and moved["revision"] >= before["revision"]
            assert now["episodes"] == before["episodes"] + 1 and now["outcomes"]["success"] == 2
            group = (await asked(client, "/api/episode/g3-0"))["group"]
            assert [member["id"] for member in group] == ["g3-0"]
        assert (await asked(client, "/api/revision"))["live"] is False


async def test_a_torn_payload_is_said_and_hides_nothing_else(tmp_path: Path) -> None:
    write_shown(tmp_path / "run")
    payloads = tmp_path / "run" / "payloads.bin"
    payloads.write_bytes(payloads.read_bytes()[:-20])
    (tmp_path / "run" / "trained.bin").write_bytes(b"torn")
    async with served(tmp_path, tmp_path / "run") as client:
        assert "holds no whole record" in (await asked(client, "/api/episode/g2-1", 500))["error"]
        assert (await asked(client, "/api/episodes"))["total"] == 5
        found = await asked(client, "/api/episode/g2-0")
        torn = next(member for member in found["group"] if member["id"] == "g2-1")
        assert (torn["step_ids"], torn["outcome"]) == ([], "environment")
        assert (await asked(client, "/api/episode/g1-0"))["steps"][0]["tokens"][0]["advantage"] is None
        assert (await asked(client, "/api/episodes?search=nothing&inside=1"))["lines"] == []


async def test_two_folders_are_compared_flips_first(tmp_path: Path) -> None:
    for name, wins in (("a", ("g1-0", "g2-0")), ("b", ("g1-0",))):
        write_shown(tmp_path / name, wins=wins)
        (tmp_path / name / "config.toml").unlink()
    async with served(tmp_path, tmp_path / "a", tmp_path / "b") as client:
        found = await asked(client, "/api/grid")
        overview = await asked(client, "/api/overview")
        other = await asked(client, "/api/episode/g2-0?run=1")
    assert found["runs"] == ["a", "b"] == overview["runs"] and overview["kind"] == "evaluation"
    first, second = found["rows"]
    assert (first["task"], first["shares"], first["flipped"]) == ("task-g2", [1.0, 0.0], True)
    assert (second["shares"], second["flipped"]) == ([pytest.approx(1 / 3)] * 2, False)
    assert first["episodes"] == [["g2-0", "g2-1"]] * 2
    assert other["line"]["success"] is False
    assert any(fact["label"] == "difference to b" and "+50.0 points" in fact["value"] for fact in overview["facts"])


async def test_a_runs_own_grid_is_its_evaluations(client: httpx.AsyncClient) -> None:
    found = await asked(client, "/api/grid")
    assert found["runs"] == ["before, sampled", "update 1, sampled"]
    assert [row["flipped"] for row in found["rows"]] == [True] * 16 + [False] * 4


async def test_a_screenshot_is_served_with_the_click_marked(tmp_path: Path) -> None:
    write_shown(tmp_path / "run")
    (tmp_path / "run" / "config.toml").write_text("torn = ")
    seen = shown_trajectory("g4-0", "g4")
    first = replace(seen.steps[0], observation=replace(seen.steps[0].observation, images=(picture(PNG),)))
    seen = replace(seen, steps=(first, *seen.steps[1:]))
    with Ledger(tmp_path / "run") as ledger:
        ledger.issue(4, "g4", Task("task-g4", "keydoor"), ["g4-0"])
        ledger.finish(seen)
    async with served(tmp_path, tmp_path / "run") as client:
        step = (await asked(client, "/api/episode/g4-0"))["steps"][0]
        name = hashlib.sha256(PNG).hexdigest()
        assert (step["images"], step["marks"]) == ([f"api/image/{name}"], [[0.5, 0.25]])
        answer = await client.get(f"/{step['images'][0]}")
        assert (answer.content, answer.headers["content-type"]) == (PNG, "image/png")
        (tmp_path / "run" / "images" / name).write_bytes(b"<svg onload=alert(1)>")
        assert (await client.get(f"/{step['images'][0]}")).status_code == 404


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is no run and no evaluation"):
        Collection([tmp_path])


def test_answers_are_json_without_nan(tmp_path: Path) -> None:
    write_shown(tmp_path)
    with Collection([tmp_path]) as shown:
        import msgspec

        json.loads(msgspec.json.encode(shown.episode("g1-0")), parse_constant=pytest.fail)
