"""The sessions of `agentrl serve` over HTTP: how they are told apart, finished, cut, recorded and refused."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import openai
import pytest
from agents_served import Calling, reply
from fakes_rollout import Engine
from served_desk import MANIFEST, SETTINGS, Client
from served_desk import served as served_by

from agentrl.endpoint.desk import Desk, DeskSettings
from agentrl.endpoint.folder import CUT, ServedFolder
from agentrl.endpoint.journal import ANSWERS
from agentrl.endpoint.server import MOST_BYTES, Gate, bind, listening, make_app
from agentrl.errors import ConfigError, StoreError
from agentrl.evaluation.comparison import compare
from agentrl.evaluation.result import load_result
from agentrl.protocols import GenerateRequest
from agentrl.rollout.tokens import TokenPlayer
from agentrl.runs.sides import open_side
from agentrl.store.ledger import Ledger
from agentrl.store.reader import FolderReader
from agentrl.types import Task, Trajectory

_CALL = b'{"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "["}}]}]}'


@asynccontextmanager
async def served(
    folder: Path, engine: Engine | None = None, settings: DeskSettings = SETTINGS, key: str = ""
) -> AsyncIterator[Client]:
    engine = engine or Engine(lambda request: "yes")
    async with served_by(folder, TokenPlayer(engine, Calling()), engine.health, settings, key) as client:
        yield client


def recorded(folder: Path) -> dict[str, Trajectory]:
    with FolderReader(folder) as reader:
        return {row.id: reader.trajectory(row.id) for row in reader.rows()}


async def test_sessions_with_equal_words_are_kept_apart_and_recorded_token_for_token(tmp_path: Path) -> None:
    engine = Engine(lambda request: "yes")
    async with served(tmp_path / "f", engine) as client:

        async def play(name: str, reward: float) -> None:
            first = await client.ask(f"/v1/s/{name}", "hello")
            await client.ask(f"/v1/s/{name}", "hello", reply(first), name)
            told = await client.finish(name, reward=reward)
            assert (told["status"], told["reward"], told["answers"]) == ("ok", reward, 2)
            # When it is told, it is on the disk.
            assert recorded(tmp_path / "f")[told["episode"]].reward == reward

        await asyncio.gather(*(play(f"n{i}", i / 4) for i in range(4)))
    found = recorded(tmp_path / "f")
    assert sorted(found) == ["n0-0", "n1-0", "n2-0", "n3-0"]
    seen = {request.tokens.tobytes() for request in engine.requests}
    for trajectory in found.values():
        last = trajectory.steps[-1]
        assert last.context == trajectory.steps[0].id and trajectory.forks == 0
        assert trajectory.tokens_through(last)[: -len(last.tokens)].tobytes() in seen
    result = load_result(tmp_path / "f")
    assert [attempt.reward for attempt in result.attempts] == [0.0, 0.25, 0.5, 0.75]
    assert result.manifest.tasks == 4 and result.interval() is not None and result.faults() == 0


async def test_two_folders_of_one_suite_are_compared_task_by_task(tmp_path: Path) -> None:
    for name, won in (("one", 1), ("two", 4)):
        async with served(tmp_path / name) as client:
            for task in range(4):
                await client.ask(f"/v1/s/{name}-{task}", "hi")
                told = await client.finish(f"{name}-{task}", success=task < won, task=f"t{task}")
                assert told["task"] == f"t{task}"
    found = compare(open_side(tmp_path / "one"), open_side(tmp_path / "two"))
    assert (found.before.value, found.after.value, len(found.won), len(found.lost)) == (0.25, 1.0, 3, 0)


async def test_path_header_user_and_key_name_a_session_and_the_words_do_where_nothing_does(tmp_path: Path) -> None:
    async with served(tmp_path / "f") as client:
        await client.ask("/v1", "hi", headers={"X-Session-Id": "by-header"})
        await client.ask("/v1", "hi", user="by-user")
        await client.ask("/v1", "hi", headers={"Authorization": "Bearer session:by-key"})
        first = await client.ask("/v1", "hi")
        other = await client.ask("/v1", "hi")
        assert first["session"] != other["session"]
        again = await client.ask("/v1", "hi", reply(first), "more")
        assert again["session"] in (first["session"], other["session"])
        for name in ("by-header", "by-user", "by-key", again["session"]):
            assert (await client.finish(name, success=True))["success"] is True
    statuses = sorted(t.status.value for t in recorded(tmp_path / "f").values())
    assert statuses == ["environment_error", "ok", "ok", "ok", "ok"]


async def test_an_announced_session_has_its_task_and_group(tmp_path: Path) -> None:
    engine = Engine(lambda request: "yes")
    async with served(tmp_path / "f", engine) as client:
        for _ in range(2):
            body = {"task": {"id": "sum-1", "data": {"a": 2}}, "group": "g"}
            opened = (await client.http.post(f"{client.url}/v1/sessions", json=body)).json()
            early = await client.finish(opened["id"], reward=1)
            assert early.status_code == 409 and "asked nothing" in early.json()["error"]["message"]
            async with openai.AsyncOpenAI(base_url=opened["base_url"], api_key="none") as agent:
                answer = await agent.chat.completions.create(
                    model="bytes", messages=[{"role": "user", "content": "2+2"}], temperature=0.25, max_tokens=3, seed=7
                )
            assert (answer.choices[0].message.content, answer.usage and answer.usage.completion_tokens) == ("yes", 3)
            told = await client.finish(opened["id"], step_rewards=[0.5], success=False)
            assert (told["task"], told["group"], told["reward"], told["success"]) == ("sum-1", "g", 0.5, False)
        sampling = engine.requests[0].sampling
        assert (sampling.temperature, sampling.max_tokens, sampling.seed) == (0.25, 3, 7)
    found = recorded(tmp_path / "f")
    assert list(found) == ["g-0", "g-1"] and found["g-1"].task.data["a"] == 2
    assert [(a.task, a.number) for a in load_result(tmp_path / "f").attempts] == [("sum-1", 0), ("sum-1", 1)]


async def test_what_nobody_finished_is_a_fault_with_its_tokens_and_no_zero(tmp_path: Path) -> None:
    async with served(tmp_path / "f", settings=replace(SETTINGS, idle=0.05)) as client:
        await client.ask("/v1/s/left", "hi")
        # It may have been left already.
        await asyncio.gather(
            *(task for task in asyncio.all_tasks() if task.get_name() == "left"), return_exceptions=True
        )
        late = await client.finish("left", reward=1)
        assert late.status_code == 409
    async with served(tmp_path / "f") as client:
        await client.ask("/v1/s/failed", "hi")
        await client.finish("failed", outcome="failed", reason="no network")
        await client.ask("/v1/s/stopped", "hi")
    found = recorded(tmp_path / "f")
    words = {name: trajectory.error for name, trajectory in found.items()}
    assert "idle" in words["left-0"] and "no network" in words["failed-0"] and "stopped" in words["stopped-0"]
    assert all(len(t.steps) == 1 and len(t.steps[0].tokens) == 4 and not t.status.trains for t in found.values())
    result = load_result(tmp_path / "f")
    assert result.faults() == 3 and result.interval() is None


async def test_a_killed_server_leaves_no_session_untold_and_a_second_one_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    async with served(folder) as client:
        await client.ask("/v1/s/whole", "hi")
        await client.finish("whole", reward=1)
        with pytest.raises(StoreError, match="in use"), ServedFolder(folder, MANIFEST):
            pass
    with Ledger(folder) as ledger:  # what a kill leaves: noted, and never ended
        ledger.extend([(1, "cut", Task("cut", "endpoint"), ["cut-0"])])
    async with served(folder) as client:
        assert client.desk._folder.cut == 1
        await client.ask("/v1/s/whole", "hi")
        assert (await client.finish("whole", reward=0))["episode"] == "whole-1"
    found = recorded(folder)
    assert found["cut-0"].error == CUT and not found["cut-0"].status.trains
    assert sorted(found) == ["cut-0", "whole-0", "whole-1"]
    with pytest.raises(ConfigError, match=r"holds another evaluation: policy kind was .bytes. and is .other.\. Choose"):
        ServedFolder(folder, replace(MANIFEST, identity={"kind": "other"})).__enter__()


async def test_a_server_that_is_killed_in_mid_session_loses_no_answer(tmp_path: Path) -> None:
    async with served(tmp_path / "f", Engine(lambda request: f"answer {len(request.tokens)}")) as client:
        await client.ask("/v1/s/over", "hi")
        await client.finish("over", reward=1)
        first = await client.ask("/v1/s/cut", "hi")
        await client.ask("/v1/s/cut", "hi", reply(first), "more", n=2)
        await client.ask("/v1/s/other", "hello")
        await client.ask("/v1/s/cut", "something else")
        # What a kill at this moment leaves.
        shutil.copytree(tmp_path / "f", tmp_path / "left")
        assert (await client.finish("cut", reward=1))["answers"] == 4
        await client.finish("other", reward=1)
        assert not (tmp_path / "f" / ANSWERS).exists()
    with (tmp_path / "left" / ANSWERS).open("ab") as file:
        file.write(b"an answer that was not given any more")
    async with served(tmp_path / "left") as client:
        assert client.desk._folder.cut == 2 and not (tmp_path / "left" / ANSWERS).exists()
    whole, kept = recorded(tmp_path / "f"), recorded(tmp_path / "left")
    assert sorted(kept) == ["cut-0", "other-0", "over-0"]
    for name, steps in (("cut-0", 4), ("other-0", 1)):
        assert (kept[name].status.value, kept[name].error, kept[name].reward) == ("infrastructure_error", CUT, 0.0)
        assert kept[name].forks == whole[name].forks and len(kept[name].steps) == steps
        for before, after in zip(whole[name].steps, kept[name].steps, strict=True):
            assert after.action == before.action and after.observation == before.observation
            assert (after.id, after.previous, after.context) == (before.id, before.previous, before.context)
            assert after.prompt.tolist() == before.prompt.tolist() and after.tokens.tolist() == before.tokens.tolist()
            assert after.logprobs.tolist() == before.logprobs.tolist()
    result = load_result(tmp_path / "left")
    assert result.faults() == 2 and result.scores() == {"over": [1.0]}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "JSON list"),
        (b"{}", "messages"),
        (b'{"messages": []}', "messages"),
        (b'{"messages": [{"role": "wizard", "content": "x"}]}', "messages.0.role"),
        (b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', "messages.0.content"),
        (_CALL, "calls f with arguments that are not"),
        (b'{"messages": [{"role": "user", "content": "x"}], "top_p": 0.5}', "top_p"),
        (b'{"messages": [{"role": "user", "content": "x"}], "n": 0}', "n:"),
        (b'{"messages": [{"role": "user", "content": "x"}], "tool_choice": "required"}', "tool_choice"),
        (b'{"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_object"}}', "response_"),
        (b'{"messages": [{"role": "user", "content": "x"}], "logit_bias": {"5": 1}}', "logit_bias"),
        (b'{"messages": [{"role": "user", "content": "x"}], "sparkle": 1}', "sparkle"),
        (b'{"messages": [{"role": "user", "content": "x"}], "temperature": -1}', "temperature"),
        (b'{"messages": [{"role": "user", "content": "x"}], "user": "../../etc"}', "no name"),
    ],
)
async def test_what_cannot_be_answered_as_asked_is_refused_in_words(tmp_path: Path, body: bytes, words: str) -> None:
    async with served(tmp_path / "f") as client:
        answer = await client.http.post(f"{client.url}/v1/chat/completions", content=body)
        assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error"
        assert words in answer.json()["error"]["message"]
        assert client.desk.open == 0


async def test_keys_hosts_sizes_models_and_crowds_are_held_to(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--key"):
        bind("0.0.0.0", 0, "")
    async with served(tmp_path / "f", settings=replace(SETTINGS, sessions=1), key="secret") as client:
        right = {"Authorization": "Bearer secret"}
        assert (await client.ask("/v1/s/a", "hi")).status_code == 401
        assert (await client.ask("/v1/s/a", "hi", headers={"Authorization": "Bearer wrong"})).status_code == 401
        assert (await client.ask("/v1", "hi", headers={"Authorization": "Bearer session:a"})).status_code == 401
        foreign = await client.ask("/v1/s/a", "hi", headers={**right, "Host": "evil.example"})
        assert foreign.status_code == 400 and "evil.example" in foreign.text
        assert (await client.ask("/v1/s/a", "hi", headers=right, model="gpt")).status_code == 404
        listed = await client.http.get(f"{client.url}/v1/models", headers=right)
        assert [entry["id"] for entry in listed.json()["data"]] == ["bytes"]
        assert (await client.ask("/v1/s/a", "hi", headers=right))["model"] == "bytes"
        again = await client.ask("/v1", "hi", headers={"Authorization": "Bearer secret:a"})
        assert again["session"] == "a"
        full = await client.ask("/v1/s/b", "hi", headers=right)
        assert full.status_code == 429 and full.headers["retry-after"] == "1"
        huge = await client.http.post(
            f"{client.url}/v1/chat/completions", content=b" " * (MOST_BYTES + 1), headers=right
        )
        assert huge.status_code == 413
        assert (await client.http.get(f"{client.url}/nowhere")).json()["error"]["code"] is None
        assert (await client.http.get(f"{client.url}/health", headers=right)).json()["open_sessions"] == 1


async def test_closing_waits_for_no_client(tmp_path: Path) -> None:
    """Neither for one that keeps its connection, nor for half a request, nor for an answer that never comes."""
    asked = asyncio.Event()

    async def never(request: object, named: str) -> NoReturn:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("never")

    with ServedFolder(tmp_path / "f", MANIFEST) as kept:
        desk = Desk(TokenPlayer(Engine(), Calling()), kept, SETTINGS)
        app = make_app(desk, Gate(), [("GET", "/never", never)])
        async with listening(app, bind("127.0.0.1", 0, ""), grace=0.01) as url:
            port = int(url.rpartition(":")[2])
            head = b" HTTP/1.1\r\nHost: localhost\r\n"
            clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            for (_, writer), sent in zip(
                clients,
                (b"GET /v1/models" + head + b"\r\n", b"GET /v1" + head, b"GET /never" + head + b"\r\n"),
                strict=True,
            ):
                writer.write(sent)
            assert b"200 OK" in await clients[0][0].readline()
            await asked.wait()
        for reader, writer in clients:
            with contextlib.suppress(ConnectionResetError):
                assert b"200 OK" not in await reader.read()
            writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await desk.close()


async def test_an_engine_that_fails_is_told_and_is_no_zero(tmp_path: Path) -> None:
    def fails(request: GenerateRequest) -> str:
        raise RuntimeError("out of memory")

    async with served(tmp_path / "f", Engine(fails)) as client:
        answer = await client.ask("/v1/s/a", "hi")
        assert answer.status_code == 503 and "out of memory" in answer.json()["error"]["message"]
    (trajectory,) = recorded(tmp_path / "f").values()
    assert trajectory.status.value == "infrastructure_error"


async def test_a_client_that_hangs_up_in_mid_stream_finds_its_answer_again(tmp_path: Path) -> None:
    async with served(tmp_path / "f", Engine(lambda request: "a b c")) as client:
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
        async with client.http.stream("POST", f"{client.url}/v1/s/a/chat/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                assert line.startswith("data: ")
                break
        agent = openai.AsyncOpenAI(base_url=f"{client.url}/v1/s/a", api_key="none")
        stream = await agent.chat.completions.create(
            model="bytes", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        words = [event.choices[0].delta.content async for event in stream]
        await agent.close()
        assert "".join(word or "" for word in words) == "a b c"
        told = await client.finish("a", reward=1)
    assert told["answers"] in (1, 2)  # 2 where the whole stream had been handed to the kernel before the hang-up
