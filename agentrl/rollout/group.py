"""One group's view of the rollout engine: what its strategy may do, and what is known of its members.

A member that an earlier life of the run recorded is given back as it is, whatever is asked for under its number.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from agentrl.errors import InvalidDataError, StoreError
from agentrl.protocols import Demands
from agentrl.rollout.decisions import sampling_seed
from agentrl.rollout.episode import Episode
from agentrl.rollout.forking import Start, fork_of
from agentrl.types import Action, Group, Message, Settlement, Source, Task, Trajectory

if TYPE_CHECKING:
    from agentrl.rollout.engine import RolloutEngine


class GroupRollout:
    """One group's view of the rollout engine, which knows what was already played; implements `protocols.Rollout`."""

    def __init__(
        self,
        engine: RolloutEngine,
        name: str,
        recorded: Mapping[int, Trajectory],
        record: Callable[[Trajectory], Awaitable[None]] | None,
        demands: Demands,
        recall: Callable[[str], Trajectory] | None = None,
    ) -> None:
        self.name = name
        self._demands = demands
        self._recall = recall
        self._engine = engine
        self._recorded = recorded
        self._record = record
        self._episodes: dict[int, Episode] = {}
        self._ended: dict[int, Trajectory] = dict(recorded)

    async def episode(self, task: Task, member: int) -> Trajectory:
        if member in self._recorded:
            return self._recorded[member]
        return await self._engine.dispatch(task, member, self, Start(demands=self._demands))

    async def fork(self, parent: Trajectory, at: int, member: int, *, told: str = "", given: str = "") -> Trajectory:
        start = fork_of(parent, at, told, given, self._demands)
        if member in self._recorded:
            return self._recorded[member]
        shared = tuple(map(self._engine.unscored, start.shared))
        if parent.group != self.name:
            # It was trained in its own batch, perhaps long ago.
            shared = tuple(replace(step, source=Source.REPLAY) for step in shared)
        start = replace(start, shared=shared)
        return await self._engine.dispatch(parent.task, member, self, start)

    async def settle(self, group: Group, known: Settlement | None) -> tuple[Group, Settlement | None]:
        """The complete group with what reward models say that compare its members; see `Judges.settle`."""
        return await self._engine.settle(group, known)

    async def ask(self, messages: Sequence[Message], member: int) -> str:
        return await self._engine.ask(messages, member, self.name)

    async def winning_line(self, task: Task) -> Sequence[Action]:
        return await self._engine.winning_line(task)

    async def demonstrate(self, task: Task, member: int, actions: Sequence[Action]) -> Trajectory:
        if not actions:
            raise InvalidDataError(f"no action was given for task {task.id!r}; a demonstration has at least one.")
        if member in self._recorded:
            return self._recorded[member]
        start = Start(source=Source.EXPERT, demands=self._demands, line=tuple(actions))
        return await self._engine.dispatch(task, member, self, start)

    async def recall(self, trajectory: str) -> Trajectory:
        if self._recall is None:
            raise StoreError(
                f"this rollout keeps no records, so {trajectory!r} cannot be gone back to. Use a strategy without "
                "`recall`, or play it in a run."
            )
        return await asyncio.to_thread(self._recall, trajectory)

    def dice(self, place: str) -> random.Random:
        return random.Random(sampling_seed(self._engine.seed, self.name, place, -1, -1))

    @property
    def oldest_version(self) -> int | None:
        """Policy version of the oldest token that the group holds so far, or None where it has none."""
        playing = [episode.oldest_version for episode in self._episodes.values()]
        return min((v for v in [*playing, oldest_version(tuple(self._ended.values()))] if v is not None), default=None)

    def began(self, member: int, episode: Episode) -> None:
        self._episodes[member] = episode

    def ended(self, member: int, trajectory: Trajectory) -> None:
        self._episodes.pop(member, None)
        self._ended[member] = trajectory

    async def record(self, trajectory: Trajectory) -> None:
        if self._record is not None:
            await self._record(trajectory)


def oldest_version(trajectories: Sequence[Trajectory]) -> int | None:
    """Policy version of the oldest token that could be trained on; None where there is none."""
    return min(_versions(trajectories), default=None)


def _versions(trajectories: Sequence[Trajectory]) -> Iterator[int]:
    for trajectory in trajectories:
        if trajectory.status.trains:
            for step in trajectory.steps:
                if step.trains and step.versions.size:
                    yield int(step.versions.min())
