"""Advice that every prompt of an episode shows and that no environment has said.

Rule: an episode keeps the advice that it began with; what the environment showed is recorded as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agentrl.rollout.decisions import Decider, Decision, Player, Seat
from agentrl.rollout.privilege import told
from agentrl.types import Observation, Step, ToolSpec


@dataclass(frozen=True, slots=True)
class AdvisedPlayer:
    """Implements `decisions.Player`: another one that finds the advice behind the task's first message."""

    player: Player
    advice: Callable[[], str]
    "Asked when an episode begins; an empty text leaves the prompt as it is."

    @property
    def max_context(self) -> int:
        return self.player.max_context

    def sit(self, seat: Seat) -> AdvisedDecider:
        return AdvisedDecider(self.player.sit(seat), self.advice())

    async def forget(self, session: str) -> None:
        await self.player.forget(session)


class AdvisedDecider:
    """Implements `decisions.Decider`."""

    def __init__(self, decider: Decider, advice: str) -> None:
        self._decider = decider
        self._advice = advice

    def prepare(self, steps: Sequence[Step], observation: Observation, tools: Sequence[ToolSpec]) -> bool:
        if not self._advice:
            return self._decider.prepare(steps, observation, tools)
        if not steps:
            return self._decider.prepare(steps, self._advised(observation), tools)
        # A prompt that is made anew in mid-episode begins with the first observation.
        first = replace(steps[0], observation=self._advised(steps[0].observation))
        return self._decider.prepare([first, *steps[1:]], observation, tools)

    async def decide(self) -> Decision:
        return await self._decider.decide()

    def _advised(self, observation: Observation) -> Observation:
        return replace(observation, messages=told(observation.messages, self._advice))
