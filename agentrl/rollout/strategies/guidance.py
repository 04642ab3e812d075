"""Groups that are helped only where they would teach nothing: guidance for the last members when all others fail.

A group in which someone succeeded unaided is never helped, and no more of the solution is shown than was needed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from agentrl.errors import ConfigError, EnvironmentFault
from agentrl.protocols import Demands, Rollout
from agentrl.rollout.strategies.rounds import Budget, fill, play_roots
from agentrl.types import Action, Task, Trajectory


@dataclass(frozen=True, slots=True)
class Guided:
    """Guidance on all-fail groups, in stages (GHPO, arXiv 2507.10628): more is shown for as long as all fail.

    A group keeps `reserve` members back for each stage. Where all before them failed, those of a stage are played with
    the first `shares[stage]` of the oracle's actions in words, rounded up; after a stage with a success the rest is
    played without a hint. The shares are those of the paper's code, which samples the whole group anew in each stage;
    here the stages share one group's budget, so that a group which needs no help costs what it always does.

    placed "hidden" shows the hint and trains without it, so that the policy learns to do without; log-probabilities
    are those of the guided sampler, and a ratio against them is a true importance weight. "prompt" trains with the
    hint in the prompt, as GHPO does.
    """

    reserve: int = 1
    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    placed: Literal["hidden", "prompt"] = "hidden"
    words: str = "A solution begins like this: {line}."

    def __post_init__(self) -> None:
        rising = all(low < high for low, high in pairwise((0.0, *self.shares)))
        if self.reserve < 1 or not self.shares or not rising or self.shares[-1] > 1.0:
            raise ConfigError(
                f"reserve is {self.reserve} and shares {list(self.shares)}; allowed are 1 and above, and rising shares "
                "above 0 up to 1."
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
        return Demands(group=self.reserve * len(self.shares) + 1)

    async def run(self, task: Task, size: int, rollout: Rollout) -> Sequence[Trajectory]:
        members = await play_roots(task, 0, size - self.reserve * len(self.shares), rollout)
        played = [trajectory for trajectory in members if trajectory.status.trains]
        # Without an episode there is nothing to fork, and nothing that says that the task is too hard.
        line = await self._line(task, rollout) if played and not any(t.success for t in played) else ()
        for share in self.shares if line else ():
            members += await self._stage(played[0], share, line, len(members), rollout)
            if any(trajectory.success for trajectory in members[-self.reserve :]):
                break
        return await fill(task, members, Budget(size), rollout)

    async def _stage(
        self, beginning: Trajectory, share: float, line: Sequence[Action], first: int, rollout: Rollout
    ) -> Sequence[Trajectory]:
        """Members `first` and on: the same beginning as everyone's, and the hint beside it."""
        hint = self.words.format(line=", ".join(map(in_words, line[: math.ceil(share * len(line))])))
        told, given = (hint, "") if self.placed == "prompt" else ("", hint)
        places = range(first, first + self.reserve)
        return await asyncio.gather(*(rollout.fork(beginning, 0, at, told=told, given=given) for at in places))

    async def _line(self, task: Task, rollout: Rollout) -> Sequence[Action]:
        try:
            return await rollout.winning_line(task)
        except EnvironmentFault:
            # The episodes have supervision of their own; without a line the reserve is played as it is.
            return ()


def in_words(action: Action) -> str:
    """An action as a person would write it: tool names with their values, or what is said."""
    calls = [" ".join([call.name, *map(str, call.arguments.values())]) for call in action.tool_calls]
    return " and ".join(calls) or action.text
