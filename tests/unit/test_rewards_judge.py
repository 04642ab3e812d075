"""A judge against a real HTTP server: verdicts, what is kept of them, and that silence is never a zero."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import make_trajectory
from json_server import Answer, Call, Server, serve

from agentrl.errors import ConfigError, InfrastructureFault
from agentrl.rewards.bill import Prices
from agentrl.rewards.judge import Judge, Question, prompt_of
from agentrl.runs.judge import Server as JudgeServer
from agentrl.runs.judge import open_judge
from agentrl.types import Action, Status, Task

PER_STEP = Question("right is 1")
PER_EPISODE = Question("right is 1", per="episode", low=-1.0)


class Replies:
    """Answers with the next text, the last one for ever."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    async def __call__(self, call: Call) -> Answer:
        text = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return Answer(body={"choices": [choice], "usage": {"prompt_tokens": 1000, "completion_tokens": 10}})


def judge_at(server: Server, folder: Path, question: Question = PER_STEP, **rest: Any) -> Judge:
    return open_judge(JudgeServer(f"{server.url}/v1", "wise"), question, folder, **rest)


def body_of(call: Call) -> dict[str, Any]:
    return dict(call.body)


async def test_a_verdict_scores_the_steps_and_equal_questions_are_asked_once(tmp_path: Path) -> None:
    episode = make_trajectory("t", "g", [0.0, 1.0])
    async with serve(Replies('Well {no}.\n```json\n{"reason": "r", "scores": [0.25, 1]}\n```')) as server:
        judge = judge_at(server, tmp_path)
        first, second = await asyncio.gather(judge.score(episode), judge.score(episode))
        assert list(first) == list(second) == [0.25, 1.0]
        assert len(server.calls) == 1
        await judge.close()

        resumed = judge_at(server, tmp_path)
        assert list(await resumed.score(episode)) == [0.25, 1.0]
        assert len(server.calls) == 1, "the verdict was on the disk"
        assert resumed.take_metrics()["known"] == 1
        await resumed.close()

        strict = judge_at(server, tmp_path, Question("right is 0.5"))
        await strict.score(episode)
        assert len(server.calls) == 2, "another rubric is another question"
        await strict.close()
    sent = body_of(server.calls[0])
    assert sent["model"] == "wise" and "right is 1" in sent["messages"][0]["content"]
    record = json.loads(sent["messages"][1]["content"])
    assert [step["answer"] for step in record["steps"]] == ["x", "x"] and record["task"] == {}


async def test_a_verdict_on_an_episode_stands_on_its_last_step(tmp_path: Path) -> None:
    async with serve(Replies('<think>{"score": 1}</think>{"score": -0.5}')) as server:
        judge = judge_at(server, tmp_path, PER_EPISODE)
        assert list(await judge.score(make_trajectory("t", "g", [0.0, 1.0, 0.0]))) == [0.0, 0.0, -0.5]
        assert list(await judge.score(make_trajectory("t", "g", []))) == []
        await judge.close()


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ("", "no JSON object"),
        ("I would say 0.5", "no JSON object"),
        ('{"scores": [0.5]}', "1 scores for 2 steps"),
        ('{"scores": [0.5, 1.5]}', "a score is from 0 to 1"),
        ('{"scores": [0.5, NaN]}', "no JSON object"),
        ('{"scores": [0.5, "1"]}', "cannot be read"),
        ('{"scores": null}', "cannot be read"),
        ('{"score": 1}', "cannot be read"),
    ],
)
async def test_a_reply_that_cannot_be_read_is_a_fault_and_is_paid_for(tmp_path: Path, reply: str, told: str) -> None:
    episode = make_trajectory("t", "g", [0.0, 1.0])
    async with serve(Replies(reply, '{"scores": [0, 1]}')) as server:
        judge = judge_at(server, tmp_path, prices=Prices(prompt=2.0, completion=8.0))
        with pytest.raises(InfrastructureFault, match=told):
            await judge.score(episode)
        assert list(await judge.score(episode)) == [0.0, 1.0]
        await judge.close()
    counted = judge.take_metrics()
    assert counted["asked"] == 2 and counted["unreadable"] == 1 and counted["prompt_tokens"] == 2000
    # Two calls of 1,000 tokens at 2 and 10 tokens at 8 per million.
    assert counted["cost"] == counted["cost_total"] == pytest.approx(0.00416)
    assert judge.take_metrics()["cost"] == 0.0, "counted since the last time"
    first, second = (body_of(call) for call in server.calls)
    assert (first["temperature"], second["temperature"]) == (0.0, 0.7), "the same question gets another reply"
    assert first["seed"] != second["seed"]


async def test_a_server_that_fails_is_a_fault(tmp_path: Path) -> None:
    async def refuse(call: Call) -> Answer:
        return Answer(400, {"error": "no such model"})

    async with serve(refuse) as server:
        judge = judge_at(server, tmp_path)
        with pytest.raises(InfrastructureFault, match="no such model"):
            await judge.score(make_trajectory("t", "g", [1.0]))
        await judge.close()
    counted = judge.take_metrics()
    assert (counted["asked"], counted["silent"], counted["replies_total"]) == (1, 1, 0)


async def test_what_a_killed_run_paid_stays_on_the_bill(tmp_path: Path) -> None:
    prices = Prices(prompt=2.0, completion=8.0)
    async with serve(Replies('{"scores": [1]}')) as server:
        killed = judge_at(server, tmp_path, prices=prices)
        await killed.score(make_trajectory("t", "g", [1.0]))
        (bill,) = (tmp_path / "bills").iterdir()
        with bill.open("ab") as file:
            file.write(b"[10")
        resumed = judge_at(server, tmp_path, prices=prices)
        assert str(resumed.account()) == "1 replies · 1,000 prompt and 10 completion tokens · cost 0.00208"
        await resumed.score(make_trajectory("t", "g", [1.0]))
        assert resumed.take_metrics()["cost_total"] == pytest.approx(0.00208), "a verdict that was known is free"
        await resumed.score(replace(make_trajectory("u", "g", [0.0]), status=Status.TRUNCATED))
        counted = resumed.take_metrics()
        for judge in (killed, resumed):
            await judge.close()
    assert counted["replies_total"] == len(server.calls) == len(bill.read_text().splitlines())


async def test_a_torn_verdict_is_asked_for_again(tmp_path: Path) -> None:
    episode = make_trajectory("t", "g", [1.0])
    async with serve(Replies('{"scores": [1]}')) as server:
        judge = judge_at(server, tmp_path / "run", cache=tmp_path / "shared")
        await judge.score(episode)
        (kept,) = (tmp_path / "shared").rglob("*.json")
        kept.write_bytes(kept.read_bytes()[:20])
        assert list(await judge.score(episode)) == [1.0]
        await judge.close()
    assert len(server.calls) == 2 and not (tmp_path / "run" / "verdicts").exists()


def test_long_messages_are_cut_in_the_middle_and_answers_shown_on_request() -> None:
    episode = make_trajectory("t", "g", [1.0])
    step = replace(episode.steps[0], action=Action("a" * 30 + "b" * 30), error="wrong")
    episode = replace(episode, steps=(step,), task=Task("t", "test", data={"gold": "7", "secret": "8"}))
    _, message = prompt_of(episode, Question("r", show=("gold",), longest=20))
    record = json.loads(message.content)
    assert record["task"] == {"gold": "7"}
    assert record["steps"][0]["answer"] == "a" * 10 + " [... 40 characters left out ...] " + "b" * 10
    assert record["steps"][0]["mistake"] == "wrong"


def test_a_judge_says_what_it_cannot_be_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the rubric is empty"):
        Question(" ")
    with pytest.raises(ConfigError, match="low is below high"):
        Question("r", low=1.0, high=1.0)
    with pytest.raises(ConfigError, match=r"\$NO_SUCH_KEY is not set"):
        open_judge(JudgeServer("https://judge.test/v1", "wise", "NO_SUCH_KEY"), PER_STEP, tmp_path)


@pytest.mark.parametrize("question", [PER_STEP, PER_EPISODE])
async def test_a_server_that_can_is_asked_for_nothing_but_a_grade(tmp_path: Path, question: Question) -> None:
    reply = '{"reason": "r", "scores": [1]}' if question is PER_STEP else '{"reason": "r", "score": 1}'
    async with serve(Replies(reply)) as server:
        plain = judge_at(server, tmp_path / "plain", question)
        strict = open_judge(
            JudgeServer(f"{server.url}/v1", "wise", replies="json_schema"), question, tmp_path / "strict"
        )
        for judge in (plain, strict):
            assert list(await judge.score(make_trajectory("t", "g", [1.0]))) == [1.0]
            await judge.close()
    assert "response_format" not in body_of(server.calls[0])
    asked = body_of(server.calls[1])["response_format"]
    schema = asked["json_schema"]["schema"]
    assert asked["type"] == "json_schema" and schema["required"] == sorted(json.loads(reply))
    if question.per == "step":
        assert schema["properties"]["scores"]["minItems"] == schema["properties"]["scores"]["maxItems"] == 1
    score = schema["properties"].get("score") or schema["properties"]["scores"]["items"]
    assert (score["minimum"], score["maximum"]) == (question.low, question.high)
