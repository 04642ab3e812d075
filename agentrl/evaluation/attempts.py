"""One attempt at one task: what results, tables and comparisons are counted from.

An attempt that a fault ended is kept apart and never counts as a failure; it is not scored at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agentrl.outcomes import count_calls, outcome_of
from agentrl.types import Status, Trajectory


@dataclass(frozen=True, slots=True)
class Attempt:
    """One episode of an evaluation."""

    task: str
    number: int
    status: str
    reward: float
    success: bool
    steps: int
    tokens: int
    "Sampled tokens."
    calls: int
    "Tool calls, malformed ones included."
    wrong_calls: int
    "Malformed calls, unknown tools, invalid arguments."
    error: str = ""
    episode: str = ""
    "Its id in the folder's ledger, where it has one."
    outcome: str = ""
    "A value of `agentrl.outcomes.Outcome`."
    score: float = 0.0
    "From 0 to 1, as the suite scores it."
    prompt_tokens: int = 0
    "Sent, the whole prompt of every step."
    seconds: float = 0.0
    "Waiting included: the one number that a repetition does not give again."

    @property
    def scored(self) -> bool:
        return Status(self.status).trains


def succeeded(trajectory: Trajectory) -> float:
    """1 where the environment says that the task was done, else 0."""
    return float(trajectory.success)


def attempt_of(trajectory: Trajectory, number: int, score: Callable[[Trajectory], float] = succeeded) -> Attempt:
    calls, wrong = count_calls(trajectory)
    prompts, sampled = count_tokens(trajectory)
    return Attempt(
        task=trajectory.task.id,
        number=number,
        status=trajectory.status.value,
        reward=trajectory.reward,
        success=trajectory.success,
        steps=len(trajectory.steps),
        tokens=sampled,
        calls=calls,
        wrong_calls=wrong,
        error=trajectory.error,
        episode=trajectory.id,
        outcome=outcome_of(trajectory).value,
        score=score(trajectory) if trajectory.status.trains else 0.0,
        prompt_tokens=prompts,
        seconds=sum(step.timings.total for step in trajectory.own),
    )


def by_task(attempts: Sequence[Attempt], value: Callable[[Attempt], float]) -> Mapping[str, Sequence[float]]:
    """Per task the values of the attempts that were scored."""
    found: dict[str, list[float]] = {}
    for attempt in attempts:
        if attempt.scored:
            found.setdefault(attempt.task, []).append(value(attempt))
    return found


def count_tokens(trajectory: Trajectory) -> tuple[int, int]:
    """Tokens sent and tokens sampled. Behind a chat API they are the server's count."""
    through: dict[str, int] = {}
    prompts = sampled = 0
    for step in trajectory.steps:
        if "prompt_tokens" in step.scores:
            prompts += int(step.scores["prompt_tokens"])
            sampled += int(step.scores["completion_tokens"])
            continue
        before = through.get(step.context or "", 0)
        prompts += before + len(step.prompt)
        sampled += len(step.tokens)
        through[step.id] = before + len(step.prompt) + len(step.tokens)
    return prompts, sampled
