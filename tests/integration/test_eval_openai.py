"""An OpenAI-compatible server is measured on held-out tasks, over a real socket."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from typing import Any

import pytest
from json_server import Answer, Call, serve
from tool_desk.env import ToolDesk

from agentrl import Task
from agentrl.engines.openai import OpenAIEngine
from agentrl.environment import adapt
from agentrl.evaluation.harness import Evaluation, evaluate
from agentrl.rollout.chat import ChatPlayer
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.types import Status, Trajectory

LEVEL = "hard"
TASKS = list(islice(ToolDesk(level=LEVEL).tasks("test"), 6))


class Model:
    """A server that plays the desk's oracle, knowing only what a request tells it."""

    def __init__(self, tasks: Sequence[Task], *, stumbles: bool = False) -> None:
        env = ToolDesk(level=LEVEL)
        self._lines = {env.reset(task).messages[-1].content: list(env.oracle(task)) for task in tasks}
        self._stumbles = stumbles

    async def __call__(self, request: Call) -> Answer:
        messages = request.body["messages"]
        if self._stumbles and messages[-1]["role"] == "user" and "not valid JSON" not in messages[-1]["content"]:
            return _completion({"content": None, "tool_calls": [_wire("x", "book", '{"person": ')]})
        start = max(i for i, m in enumerate(messages) if m["role"] == "user" and m["content"] in self._lines)
        done = sum("tool_calls" in message for message in messages[start:])
        action = self._lines[messages[start]["content"]][done]
        calls = [
            _wire(f"call-{done}-{i}", made.name, json.dumps(dict(made.arguments)))
            for i, made in enumerate(action.tool_calls)
        ]
        return _completion({"content": action.text or None, **({"tool_calls": calls} if calls else {})})


def _wire(name: str, function: str, arguments: str) -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": function, "arguments": arguments}}


def _completion(message: dict[str, Any]) -> Answer:
    usage = {"prompt_tokens": 100, "completion_tokens": 9}
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return Answer(body={"id": "c", "choices": [choice], "usage": usage})


async def measure(url: str, tasks: Sequence[Task]) -> tuple[Evaluation, Trajectory]:
    engine = OpenAIEngine(url + "/v1", "oracle-1")
    limits, slots = EpisodeLimits(temperature=0.0), Supervision(environment_slots=4, backoff=0.001)
    try:
        async with RolloutEngine(
            lambda: adapt(ToolDesk(level=LEVEL)), ChatPlayer(engine), limits=limits, supervision=slots
        ) as rollout:
            result = await evaluate(rollout, tasks, attempts=1, temperature=0.0, update=0)
            return result, await rollout.episode(tasks[0], 0)
    finally:
        await engine.close()


async def test_a_server_that_plays_the_oracle_scores_one() -> None:
    async with serve(Model(TASKS)) as server:
        result, again = await measure(server.url, TASKS)
    assert result.success().value == 1.0 and result.faults() == 0 and result.call_validity() == 1.0
    steps = len(again.steps)
    assert sum(step.scores["prompt_tokens"] for step in again.steps) == 100 * steps
    assert sum(step.scores["completion_tokens"] for step in again.steps) == 9 * steps
    assert len(server.calls) == steps + sum(attempt.steps for attempt in result.attempts)
    for call in server.calls:
        assert {entry["function"]["name"] for entry in call.body["tools"]} == {
            "find_person",
            "find_room",
            "calculate",
            "book",
        }
        asked = [made["id"] for m in call.body["messages"] for made in m.get("tool_calls", ())]
        told = [m["tool_call_id"] for m in call.body["messages"] if m["role"] == "tool"]
        assert asked == told


async def test_a_malformed_call_is_told_over_the_wire_and_counts_as_the_models_mistake() -> None:
    async with serve(Model(TASKS, stumbles=True)) as server:
        result, stumbled = await measure(server.url, TASKS)
    assert result.success().value == 1.0 and (result.call_validity() or 0) < 1.0
    assert "not valid JSON" in stumbled.steps[0].error and not stumbled.steps[1].error


async def test_a_server_that_speaks_and_does_nothing_scores_zero() -> None:
    async def talker(call: Call) -> Answer:
        return _completion({"content": "Done, everything is booked."})

    async with serve(talker) as server:
        result, _ = await measure(server.url, TASKS[:2])
    assert result.success().value == 0.0 and result.faults() == 0


@pytest.mark.parametrize("refusal", [Answer(401, {"error": "bad key"}), Answer(400, {"error": "no such model"})])
async def test_a_server_that_refuses_is_a_fault_and_no_score(refusal: Answer) -> None:
    async def model(call: Call) -> Answer:
        return refusal

    async with serve(model) as server:
        result, refused = await measure(server.url, TASKS[:1])
    assert result.faults() == 1 and result.successes() == {}
    assert refused.status is Status.INFRASTRUCTURE_ERROR and str(refusal.status) in refused.error
    assert len(server.calls) == 6
