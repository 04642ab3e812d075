"""Groups that are helped only where they would teach nothing: guidance for the last members when all others fail.

What the policy is told is shown while it samples and is not part of what is trained on.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

from agentrl.errors import ConfigError, EnvironmentFault
from agentrl.protocols import Demands, Rollout
from agentrl.rollout.strategies.rounds import Budget, fill, play_roots
from agentrl.types import Action, Task, Trajectory


@dataclass(frozen=True, slots=True)
class Guided:
    """Guidance on all-fail groups (GHPO, BEPA): `reserve` members wait until the others are over.

    Where none of those succeeded, the reserve is played with the first `share` of the oracle's actions in words,
    rounded up; otherwise as any member. Sources put the guidance into the prompt that is trained on, or schedule the
    share; here it is fixed and hidden, so that the policy learns to do without it. Its log-probabilities are those of
    the guided sampler, and a ratio against them is a true importance weight.
    """

    reserve: int = 1
    share: float = 0.5
    words: str = "A solution begins like this: {line}."

    def __post_init__(self) -> None:
        if self.reserve < 1 or not 0.0 < self.share <= 1.0:
            raise ConfigError(
                f"reserve is {self.reserve} and share {self.share:g}; allowed are 1 and above, and 0 to 1."
            )
        try:
            self.words.format(line="")
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigError(
                f"words cannot be filled in ({type(error).__name__}: {error}); it may name {{line}}, and other braces "
                "are doubled."
            ) from None

    @property
    def demands(self) -> Demands:
        return Demands(group=self.reserve + 1)

    async def run(self, task: Task, size: int, rollout: Rollout) -> Sequence[Trajectory]:
        members = await play_roots(task, 0, size - self.reserve, rollout)
        played = [trajectory for trajectory in members if trajectory.status.trains]
        if played and not any(trajectory.success for trajectory in played):
            hint = await self._hint(task, rollout)
            places = range(len(members), size)
            # A fork before the first step: the same beginning, and the hint beside it.
            members += await asyncio.gather(*(rollout.fork(played[0], 0, place, given=hint) for place in places))
        return await fill(task, members, Budget(size), rollout)

    async def _hint(self, task: Task, rollout: Rollout) -> str:
        try:
            line = await rollout.winning_line(task)
        except EnvironmentFault:
            # The episodes have supervision of their own; without a line the reserve is played as it is.
            return ""
        shown = line[: math.ceil(self.share * len(line))]
        return self.words.format(line=", ".join(map(in_words, shown))) if shown else ""


def in_words(action: Action) -> str:
    """An action as a person would write it: tool names with their values, or what is said."""
    calls = [" ".join([call.name, *map(str, call.arguments.values())]) for call in action.tool_calls]
    return " and ".join(calls) or action.text
