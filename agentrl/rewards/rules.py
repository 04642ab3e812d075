"""Rewards that a rule computes from the record of an episode.

A rule scores in natural units (1 a step, a share from -1 to 0); the term's `weight` in the recipe is its price, so that
the logged score keeps its meaning whatever it is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agentrl.rewards.returns import environment_reward
from agentrl.types import Step, Trajectory


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment's own reward once more: with weight -1 it is taken out, and the other terms stand alone."""

    async def score(self, trajectory: Trajectory) -> Sequence[float]:
        return [environment_reward(step) for step in trajectory.steps]


@dataclass(frozen=True, slots=True)
class Executable:
    """1 for a step whose action the environment could execute: SPA-RL's grounding, at weight 0.5.

    The reference pays an episode's last step in any case; here a malformed last step is not paid.
    """

    async def score(self, trajectory: Trajectory) -> Sequence[float]:
        return [float(not mistaken(step)) for step in trajectory.steps]


@dataclass(frozen=True, slots=True)
class Malformed:
    """-1 for a step whose call could not be read or was refused, and for no other step (verl-agent: weight 0.1)."""

    async def score(self, trajectory: Trajectory) -> Sequence[float]:
        return [-float(mistaken(step)) for step in trajectory.steps]


@dataclass(frozen=True, slots=True)
class StepCost:
    """-1 for every step."""

    async def score(self, trajectory: Trajectory) -> Sequence[float]:
        return [-1.0] * len(trajectory.steps)


@dataclass(frozen=True, slots=True)
class Overlong:
    """From 0 at `limit - buffer` sampled tokens down to -1 at `limit`, linearly (DAPO, equation 13).

    `per` "episode" counts all steps and scores the last one; "step" counts and scores each by itself.
    """

    limit: int
    buffer: int
    per: Literal["episode", "step"] = "episode"

    def __post_init__(self) -> None:
        if not 0 < self.buffer <= self.limit:
            raise ValueError(f"buffer is {self.buffer}; it is above 0 and at most limit, {self.limit} tokens.")

    async def score(self, trajectory: Trajectory) -> Sequence[float]:
        lengths = [len(step.tokens) for step in trajectory.steps]
        if self.per == "step":
            return [self._penalty(length) for length in lengths]
        return at_the_end(trajectory, self._penalty(sum(lengths)))

    def _penalty(self, length: int) -> float:
        return -min(max(length - (self.limit - self.buffer), 0) / self.buffer, 1.0)


@dataclass(frozen=True, slots=True)
class ToolUse:
    """1 on the last step of a success in which every one of `tools` was called without a mistake (ARPO: weight 0.1)."""

    tools: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.tools:
            raise ValueError("tools is empty; name the tools that a success has to use to be paid.")

    async def score(self, trajectory: Trajectory) -> Sequence[float]:
        used = {call.name for step in trajectory.steps if not mistaken(step) for call in step.action.tool_calls}
        return at_the_end(trajectory, float(trajectory.success and used.issuperset(self.tools)))


def mistaken(step: Step) -> bool:
    """Whether the step's call was the model's mistake: unreadable, unknown or with wrong arguments."""
    return bool(step.error or step.action.error)


def at_the_end(trajectory: Trajectory, score: float) -> list[float]:
    """`score` on the last step, 0 on the others."""
    return [0.0] * (len(trajectory.steps) - 1) + [score] * bool(trajectory.steps)
