"""What became of an episode, in one word: the categories that results, reports and the viewer count by.

An outcome is read off the record alone, so that it is the same wherever it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from agentrl.errors import did_you_mean
from agentrl.types import Status, Step, Trajectory

UNKNOWN_TOOL = "no tool is called"
"How the words begin in which a model is told that it called a tool that is not there."


def unknown_tool(name: str, known: Iterable[str]) -> str:
    """What the model is told of a call of `name`."""
    known = list(known)
    return f"{UNKNOWN_TOOL} {name!r}.{did_you_mean(name, known)} Tools: {', '.join(known) or 'none'}."


class Outcome(StrEnum):
    """Faults first, then success, then the ways to fail."""

    ENVIRONMENT = "environment"
    "The environment broke; the episode is not scored."
    INFRASTRUCTURE = "infrastructure"
    "An engine, a judge or a deadline failed, or it was cancelled; the episode is not scored."
    SUSPECTED_HACK = "suspected_hack"
    'A success of which the environment or a reward model says `scores["suspected_hack"] > 0`.'
    SUCCESS = "success"
    UNKNOWN_TOOL = "unknown_tool"
    "It failed, and most of its mistakes were calls of tools that are not there."
    MALFORMED_CALL = "malformed_call"
    "It failed, and most of its mistakes were calls that could not be read, or whose arguments were refused."
    LIMIT = "limit"
    "A limit on steps or tokens ended it."
    GAVE_UP = "gave_up"
    "Its last action says nothing: no call and no words."
    WRONG_ANSWER = "wrong_answer"
    "It came to an end of its own, and that was not the goal."

    @property
    def scored(self) -> bool:
        return self not in (Outcome.ENVIRONMENT, Outcome.INFRASTRUCTURE)


def outcome_of(trajectory: Trajectory) -> Outcome:
    """Mistakes explain a failure where they are half of the steps or more, or where they ended the episode."""
    if trajectory.status is Status.ENVIRONMENT_ERROR:
        return Outcome.ENVIRONMENT
    if not trajectory.status.trains:
        return Outcome.INFRASTRUCTURE
    steps = trajectory.steps
    if trajectory.success:
        hacked = any(step.scores.get("suspected_hack", 0.0) > 0 for step in steps)
        return Outcome.SUSPECTED_HACK if hacked else Outcome.SUCCESS
    mistakes = [step for step in steps if step.error]
    if mistakes and (2 * len(mistakes) >= len(steps) or trajectory.status is Status.POLICY_ERROR):
        unknown = sum(step.error.startswith(UNKNOWN_TOOL) for step in mistakes)
        return Outcome.UNKNOWN_TOOL if 2 * unknown > len(mistakes) else Outcome.MALFORMED_CALL
    if trajectory.status is Status.TRUNCATED:
        return Outcome.LIMIT
    if steps and _says_nothing(steps[-1]):
        return Outcome.GAVE_UP
    return Outcome.WRONG_ANSWER


def count_calls(trajectory: Trajectory) -> tuple[int, int]:
    """Tool calls of an episode and how many of them were the model's mistakes; text answers are no calls."""
    called = [step for step in trajectory.steps if step.action.tool_calls or step.error]
    return len(called), sum(bool(step.error) for step in called)


def _says_nothing(step: Step) -> bool:
    return not step.action.tool_calls and not step.action.text.strip()
