"""A judge that is a real model on a real server: SmolLM2 behind vLLM's OpenAI endpoint grades steps and episodes.

Whether its grades are right is not asked of 135M parameters; that each is a verdict that was parsed, or a fault that
says why there is none, and never a made-up 0, is.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from builders import make_trajectory
from served_smollm2 import NAME

from agentrl.errors import InfrastructureFault
from agentrl.ports import free_port
from agentrl.rewards.bill import Prices
from agentrl.rewards.judge import Question
from agentrl.runs.judge import Server, open_judge
from agentrl.types import Action, Message, Observation, Task, ToolCall, Trajectory

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.timeout(900),
]

TRIES, LONGEST = 3, 256
RUBRIC = "1: the call brings the agent nearer to what the task asks for. 0: it does not, or it repeats an earlier call."
EPISODE = Question(f"Did the agent do what it was asked? {RUBRIC}", per="episode")
STEPS = Question(RUBRIC, per="step")
PRICES = Prices(prompt=1.0, completion=2.0)


def episode(name: str, *calls: tuple[str, str, str]) -> Trajectory:
    """Steps that look `who` up in `tool` and are shown an answer."""
    found = make_trajectory(name, "g", [0.0] * len(calls))
    shown = ["Find out in which room Ada Moss sits, and say it.", *(answer for _, _, answer in calls)]
    steps = tuple(
        replace(
            step,
            observation=Observation((Message("user" if not step.index else "tool", text),)),
            action=Action(tool_calls=(ToolCall(tool, {"name": who}),)),
        )
        for step, text, (tool, who, _) in zip(found.steps, shown, calls, strict=False)
    )
    final = Observation((Message("tool", shown[-1]),))
    return replace(found, task=Task("room", "desk"), steps=steps, final=final)


GOOD = episode("good", ("lookup", "Ada Moss", "Ada Moss sits in room 12."), ("answer", "room 12", "Right."))
BAD = episode("bad", ("lookup", "Bo Fern", "Bo Fern sits in room 7."), ("answer", "room 7", "Wrong."))


@dataclass
class Graded:
    scores: Sequence[float] | None
    tries: int
    faults: list[str]


async def graded(judge: object, trajectory: Trajectory) -> Graded:
    """As the rollout engine asks: again after a fault, and no score where none of the tries brought one."""
    faults: list[str] = []
    for number in range(TRIES):
        try:
            return Graded(await judge.score(trajectory), number + 1, faults)  # type: ignore[attr-defined]
        except InfrastructureFault as error:
            faults.append(str(error))
    return Graded(None, TRIES, faults)


@pytest.mark.parametrize("question", [EPISODE, STEPS], ids=lambda question: question.per)
async def test_a_small_model_gives_verdicts_or_faults_that_say_why_and_a_known_verdict_costs_nothing(
    smollm2_url: str, tmp_path: Path, question: Question
) -> None:
    server = Server(smollm2_url, NAME, timeout=300.0, max_tokens=LONGEST, replies="json_schema")
    judge = open_judge(server, question, tmp_path, prices=PRICES)
    found = {t.id: await graded(judge, t) for t in (GOOD, BAD)}
    told = judge.take_metrics()
    print(question.per, {name: (each.scores, each.tries, each.faults) for name, each in found.items()}, dict(told))
    asked = sum(each.tries for each in found.values())
    verdicts = {name: each for name, each in found.items() if each.scores is not None}
    assert told["asked"] == asked and told["silent"] == 0 and told["known"] == 0
    assert told["unreadable"] == asked - len(verdicts)
    assert told["prompt_tokens"] > 200 * asked and 0 < told["completion_tokens"] <= LONGEST * asked
    assert told["cost"] == pytest.approx((told["prompt_tokens"] + 2 * told["completion_tokens"]) / 1e6)
    for each in found.values():
        assert len(each.faults) == each.tries - (each.scores is not None)
        assert all("the judge" in fault for fault in each.faults)
    for each in verdicts.values():
        assert each.scores is not None and len(each.scores) == 2 and all(0.0 <= score <= 1.0 for score in each.scores)
    assert len(verdicts) == 2, "a form that the server keeps to can be read, with a step or two more to try"
    # The same questions once more, in another life of the run.
    await judge.close()
    again = open_judge(server, question, tmp_path, prices=PRICES)
    for name, each in verdicts.items():
        assert await again.score(GOOD if name == "good" else BAD) == each.scores
    second = again.take_metrics()
    assert (second["known"], second["asked"], second["cost"]) == (len(verdicts), 0, 0.0)
    assert second["cost_total"] == pytest.approx(told["cost"]) and second["replies_total"] == asked
    await again.close()


async def test_a_server_that_is_not_there_is_a_fault_and_no_zero(tmp_path: Path) -> None:
    judge = open_judge(Server(f"http://127.0.0.1:{free_port()}/v1", "judge", timeout=3.0), EPISODE, tmp_path)
    with pytest.raises(InfrastructureFault):
        await judge.score(GOOD)
    told = judge.take_metrics()
    assert told["silent"] == 1 and told["cost"] == 0
    await judge.close()
