"""`agentrl eval` as a process: killed, stopped, asked again; and a policy behind an API that misbehaves."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from json_server import Answer, Call, serve
from live_runs import LAMPS, Bench, Ended, Running, make_bench, rows

from agentrl.errors import ConfigError, InfrastructureFault
from agentrl.evaluation.result import EvaluationResult, load_result
from agentrl.plugins import Host, load_host
from agentrl.runs.evaluation import EvalSettings, evaluate, prepare
from agentrl.store.reader import FolderReader

SLOW = LAMPS.replace(
    "        self.given.append(color)", "        __import__('time').sleep(0.01)\n        self.given.append(color)"
)
ASKED = ("-k", "3", "--temperature", "1", "-j", "4", "evaluation.tasks=10")


def start(bench: Bench, out: str, policy: str = "random") -> Running:
    return bench.start(
        "eval", str(bench.folder / "recipe.toml"), *ASKED, "-m", policy, "--out", out, "--plugin", str(bench.plugin)
    )


def ended(bench: Bench, out: str, policy: str = "random") -> Ended:
    return start(bench, out, policy).wait()


def timeless(result: EvaluationResult) -> EvaluationResult:
    manifest = replace(result.manifest, command="")
    return replace(result, manifest=manifest, attempts=tuple(replace(a, seconds=0.0) for a in result.attempts))


def test_killed_anywhere_and_continued_it_says_the_same(tmp_path: Path) -> None:
    bench = make_bench(tmp_path / "bench", plugin=SLOW)
    whole = ended(bench, "whole")
    assert whole.code == 0, whole.err
    chance, kills = random.Random(7), 0
    done = "SELECT id, payload FROM trajectories WHERE payload IS NOT NULL"
    cut = bench.folder / "cut"
    for _ in range(3):
        wanted = len(rows(cut, done)) + chance.randint(1, 7)
        running = start(bench, "cut")
        if not running.wait_until(lambda wanted=wanted: len(rows(cut, done)) >= wanted):
            break
        before = dict(rows(cut, done))
        running.kill()
        kills += 1
        # What was played before the kill is still there, and in its place: nothing was played twice.
        assert before.items() <= dict(rows(cut, done)).items()
    assert kills >= 2
    last = ended(bench, "cut")
    assert last.code == 0, last.err
    one, two = load_result(bench.folder / "whole"), load_result(cut)
    assert timeless(one) == timeless(two) and one.digest() == two.digest() and len(two.attempts) == 30
    digests = [line for told in (whole, last) for line in told.out.splitlines() if line.startswith("digest")]
    assert len(digests) == 2 and digests[0] == digests[1]
    with FolderReader(cut) as reader:
        assert reader.count() == 30


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    bench = make_bench(tmp_path / "bench", plugin=SLOW)
    running = start(bench, "cut")
    done = "SELECT id FROM trajectories WHERE payload IS NOT NULL"
    assert running.wait_until(lambda: len(rows(bench.folder / "cut", done)) >= 3)
    running.send(2)
    stopped = running.wait()
    assert stopped.code == 130 and "everything is saved in cut; the same command goes on" in stopped.out
    assert load_result(bench.folder / "cut").stopped == "it was interrupted"


def test_what_cannot_be_evaluated_is_told_in_words(tmp_path: Path) -> None:
    bench = make_bench(tmp_path / "bench")
    recipe = str(bench.folder / "recipe.toml")
    for words, code, told in (
        ((recipe,), 2, "who is to play"),
        ((recipe, "-m", "orakel"), 2, "nobody is called 'orakel'"),
        (("keydor", "-m", "oracle"), 2, "Did you mean 'keydoor'"),
        (("keydoor", "-m", "oracle", "--tasks", "keydoor-test-x"), 2, "has no task 'keydoor-test-x'"),
        (("keydoor", "-m", "http://127.0.0.1:9/v1#m"), 1, "cannot be reached"),
        (("keydoor", "-m", "null", "--max-cost", "1"), 2, "needs prices"),
    ):
        refused = bench.run("eval", *words, "--plugin", str(bench.plugin))
        assert refused.code == code and told in refused.err, (words, refused.out, refused.err)


@pytest.fixture(scope="module")
def host() -> Host:
    return load_host()


async def measure(host: Host, url: str, out: Path, **more: object) -> EvaluationResult:
    settings = EvalSettings("tool-desk", f"{url}/v1", words=("level=easy",), out=out, **more)  # type: ignore[arg-type]
    return await evaluate(prepare(settings, host), host, lambda run: None)


def completion(text: str) -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return Answer(body={"id": "c", "choices": [choice], "usage": {"prompt_tokens": 50, "completion_tokens": 5}})


async def test_an_api_is_asked_for_its_only_model_and_its_tokens_are_counted(host: Host, tmp_path: Path) -> None:
    async def talker(call: Call) -> Answer:
        if call.path.endswith("/models"):
            return Answer(body={"data": [{"id": "small-1"}]})
        assert call.body["model"] == "small-1" and call.body["max_tokens"] == 33 and len(call.body["tools"]) == 4
        return completion("It is booked.")

    async with serve(talker) as server:
        result = await measure(host, server.url, tmp_path / "e", limit=5, max_tokens=33)
    assert result.interval() is not None and result.interval().value == 0.0  # type: ignore[union-attr]
    assert result.manifest.identity["model"] == "small-1"
    assert result.mean(lambda a: a.prompt_tokens) == 50 and result.mean(lambda a: a.tokens) == 5


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(401, {"error": "bad key"}), "bad key"),
        (Answer(200, b"<html>busy</html>"), "not JSON"),
        (Answer(200, {"choices": []}), "something else than a chat completion"),
    ],
)
async def test_a_server_that_answers_nonsense_is_faults_and_no_score(host, tmp_path, answer: Answer, told) -> None:
    async def broken(call: Call) -> Answer:
        return Answer(body={"data": [{"id": "m"}]}) if call.path.endswith("/models") else answer

    async with serve(broken) as server:
        result = await measure(host, server.url, tmp_path / "e", limit=2)
    assert result.faults() == 2 and result.interval() is None and told in result.attempts[0].error


async def test_a_server_with_many_models_or_none_that_answers_is_told(host: Host, tmp_path: Path) -> None:
    async def many(call: Call) -> Answer:
        return Answer(body={"data": [{"id": "a"}, {"id": "b"}]})

    async with serve(many) as server:
        with pytest.raises(ConfigError, match=r"has 2 models: a, b\. Name one: -m"):
            await measure(host, server.url, tmp_path / "e", limit=1)
    with pytest.raises(InfrastructureFault, match="failed"):
        await measure(host, "http://127.0.0.1:9", tmp_path / "e", limit=1)


async def test_a_model_that_never_stops_is_ended_by_the_limits(host: Host, tmp_path: Path) -> None:
    call = {"id": "x", "type": "function", "function": {"name": "find_person", "arguments": '{"name": "Nobody"}'}}

    async def endless(request: Call) -> Answer:
        if request.path.endswith("/models"):
            return Answer(body={"data": [{"id": "m"}]})
        message = {"role": "assistant", "content": "so " * 33, "tool_calls": [call]}
        return Answer(body={"choices": [{"index": 0, "message": message, "finish_reason": "length"}]})

    async with serve(endless) as server:
        result = await measure(host, server.url, tmp_path / "e", limit=3)
    # Easy requests take four actions at most; calling for nobody is a mistake each time, and four in a row end it too.
    assert result.faults() == 0 and {attempt.steps for attempt in result.attempts} == {4}
    assert set(result.outcomes()) <= {"limit", "malformed_call"} and result.call_validity() == 0.0
