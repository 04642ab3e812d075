"""Groups that are shown how it is done only where they would teach nothing: an expert's episode when all others fail.

An expert's tokens are no sample of the policy: they are marked as such, and only methods that say so take them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agentrl.errors import EnvironmentFault
from agentrl.protocols import Demands, Rollout
from agentrl.rollout.strategies.rounds import play_roots
from agentrl.types import Action, Task, Trajectory


class Expert(Protocol):
    """Who knows how a task is won."""

    async def line(self, task: Task, rollout: Rollout) -> Sequence[Action]:
        """The winning actions; none where it does not know. Raises `EnvironmentFault`."""
        ...


@dataclass(frozen=True, slots=True)
class Oracle:
    """The environment's own solution."""

    async def line(self, task: Task, rollout: Rollout) -> Sequence[Action]:
        return await rollout.winning_line(task)


@dataclass(frozen=True, slots=True)
class Shown:
    """Expert traces on all-fail groups (for BEPA, arXiv 2601.05787): the last member waits until the others are over.

    Where none of those succeeded, the expert's actions are played in the policy's own prompts and tokens, in a fresh
    environment that has to be won by them; a trace that does not win is left out, and the group is smaller by one.
    Otherwise, and where the expert does not know the task, the last member is played as any.
    """

    expert: Expert = Oracle()

    @property
    def demands(self) -> Demands:
        return Demands(group=3, experts=True)

    async def run(self, task: Task, size: int, rollout: Rollout) -> Sequence[Trajectory]:
        members = await play_roots(task, 0, size - 1, rollout)
        played = [trajectory for trajectory in members if trajectory.status.trains]
        line = await self._line(task, rollout) if played and not any(t.success for t in played) else ()
        if not line:
            return [*members, await rollout.episode(task, size - 1)]
        shown = await rollout.demonstrate(task, size - 1, line)
        # A fault stays in the group's record, as any member's does.
        return [*members, shown] if shown.success or not shown.status.trains else members

    async def _line(self, task: Task, rollout: Rollout) -> Sequence[Action]:
        try:
            return await self.expert.line(task, rollout)
        except EnvironmentFault:
            # The episodes have supervision of their own; without a line the last member is played as it is.
            return ()
