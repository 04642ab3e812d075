"""An episode as its world met it: what was done, what came back; and another playing of it, side by side.

What reward models, strategies and engines added to a step is no part of a script.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentrl.divergence import Divergence, came_otherwise, shown_otherwise
from agentrl.errors import InvalidDataError
from agentrl.outcomes import outcome_of
from agentrl.rewards.returns import environment_reward
from agentrl.rollout.context import with_told
from agentrl.types import Action, Observation, Status, Step, StepResult, Task, Trajectory


@dataclass(frozen=True, slots=True)
class Script:
    """`results[i]` answers `actions[i]`."""

    task: Task
    first: Observation
    actions: tuple[Action, ...]
    results: tuple[StepResult, ...]
    told: tuple[str, ...]
    "Before each action: what a strategy added to the environment's words, and what is shown holds."
    status: Status
    outcome: str
    "A value of `agentrl.outcomes.Outcome`."
    error: str = ""

    def __post_init__(self) -> None:
        if not len(self.actions) == len(self.results) == len(self.told):
            raise InvalidDataError(
                f"a script of task {self.task.id!r} has {len(self.actions)} actions, {len(self.results)} results and "
                f"{len(self.told)} texts; each action needs one of both."
            )

    @property
    def reward(self) -> float:
        return sum(result.reward for result in self.results)


def script_of(trajectory: Trajectory) -> Script:
    steps, final = trajectory.steps, trajectory.final or Observation(())
    shown = [*(step.observation for step in steps[1:]), final]
    return Script(
        task=trajectory.task,
        first=steps[0].observation if steps else final,
        actions=tuple(step.action for step in steps),
        results=tuple(_result(step, after) for step, after in zip(steps, shown, strict=False)),
        told=tuple(step.told for step in steps),
        status=trajectory.status,
        outcome=outcome_of(trajectory).value,
        error=trajectory.error,
    )


def first_divergence(recorded: Script, now: Script) -> Divergence | None:
    """Where `now` first leaves `recorded`; of a recorded fault only what came before it counts."""
    fault = Divergence(len(now.results), "the episode", "going on", f"a fault: {now.error}")
    if not now.results and not now.status.trains:
        return fault
    told, last = (*recorded.told[1:], ""), len(recorded.results) - 1
    found = shown_otherwise(0, recorded.first, with_told(now.first, recorded.told[0]))
    for index, (old, new, added) in enumerate(zip(recorded.results, now.results, told, strict=False)):
        if found is not None or (index == last and not recorded.status.trains):
            return found
        # What is shown says most, so it is looked at first.
        after = shown_otherwise(index + 1, old.observation, with_told(new.observation, added))
        found = after or came_otherwise(index, old, new)
    if found is not None:
        return found
    if not now.status.trains:
        return fault
    for what, was, came in (
        ("the status", recorded.status.value, now.status.value),
        ("the outcome", recorded.outcome, now.outcome),
    ):
        if was != came:
            return Divergence(last, what, was, came)
    return None


def _result(step: Step, after: Observation) -> StepResult:
    return StepResult(after, environment_reward(step), step.scores, step.terminated, step.truncated, step.error)
