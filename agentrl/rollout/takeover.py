"""A teacher that takes some of the policy's turns over, so that the policy is taught in states that it would not reach.

Rule: who takes a turn depends on the place of the step in the run and the policy's version alone, so that a retry or a
resumed run mixes the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agentrl.errors import ConfigError
from agentrl.rollout.decisions import Decider, Decision, Player, Seat, sampling_seed
from agentrl.types import Observation, Source, Step, ToolSpec

_SEEDS = 2**48


@dataclass(frozen=True, slots=True)
class Takeover:
    """DAgger's schedule (Ross et al. 2011) by turns: the teacher takes one with probability `beta decay^version`."""

    beta: float
    decay: float
    "Per policy version."

    def __post_init__(self) -> None:
        if not (0 <= self.beta <= 1 and 0 <= self.decay <= 1):
            raise ConfigError(f"[method] beta is {self.beta} and decay {self.decay}; both lie in [0, 1].")

    def probability(self, version: int) -> float:
        return self.beta * self.decay**version


@dataclass(frozen=True, slots=True)
class MixedPlayer:
    """Implements `decisions.Player`: two players of one tokenizer and one context policy, turn by turn."""

    policy: Player
    teacher: Player
    takeover: Takeover
    version: Callable[[], int]
    "Of the policy's weights."

    @property
    def max_context(self) -> int:
        return min(self.policy.max_context, self.teacher.max_context)

    def sit(self, seat: Seat) -> MixedDecider:
        return MixedDecider(self, seat)

    async def forget(self, session: str) -> None:
        try:
            await self.policy.forget(session)
        finally:
            await self.teacher.forget(session)


class MixedDecider:
    """Implements `decisions.Decider`. What one decided is the other's context, token for token."""

    def __init__(self, player: MixedPlayer, seat: Seat) -> None:
        self._player = player
        self._seat = seat
        self._policy, self._teacher = player.policy.sit(seat), player.teacher.sit(seat)
        self._now: Decider = self._policy

    def prepare(self, steps: Sequence[Step], observation: Observation, tools: Sequence[ToolSpec]) -> bool:
        self._now = self._teacher if self._taken(len(steps)) else self._policy
        return self._now.prepare(steps, observation, tools)

    async def decide(self) -> Decision:
        decision = await self._now.decide()
        if self._now is self._policy:
            return decision
        # The teacher has one version for ever; staleness is counted from when the policy met this state.
        versions = np.full_like(decision.versions, self._player.version())
        return replace(decision, source=Source.TEACHER, versions=versions)

    def _taken(self, index: int) -> bool:
        seat = self._seat
        dice = sampling_seed(seat.run_seed, f"takeover {seat.group}", seat.task, seat.member, index)
        return dice / _SEEDS < self._player.takeover.probability(self._player.version())
