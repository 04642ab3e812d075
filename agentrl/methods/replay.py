"""Earlier successes for groups that only fail (ARPO for GUI agents): a part of a method with a memory.

A success is what the policy itself once sampled; its log-probabilities stay those of that time, so a ratio against them
is a true importance weight. It is older than any bound on staleness, and it is there on purpose.
"""

from __future__ import annotations

import random
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from agentrl.credit.baselines import Scale
from agentrl.credit.rules import EpisodeCredit
from agentrl.errors import ConfigError
from agentrl.method import AggregationName, Clipped, Method, aggregate_by
from agentrl.store.records import decode, encode
from agentrl.types import JSON, Group, Source, Trajectory

REPLAY_CLIP = Clipped(low=0.2, high=0.3)
"The paper's clip."


class Successes:
    """The last `size` successes of each of the `tasks` tasks that succeeded most lately; a seeded dice draws."""

    def __init__(self, size: int, tasks: int) -> None:
        if size < 1 or tasks < 1:
            raise ConfigError(f"the memory holds {size} successes of {tasks} tasks; at least 1 of each is needed.")
        self._size, self._tasks = size, tasks
        self._kept: dict[str, deque[Trajectory]] = {}
        self._drawn = 0

    def draw(self, group: Group) -> Trajectory | None:
        """One of the group's task, as a member of it; None where there is none."""
        kept = self._kept.get(group.task.id)
        if not kept:
            return None
        chosen = kept[random.Random(f"{group.id} {self._drawn}").randrange(len(kept))]
        self._drawn += 1
        return replace(chosen, group=group.id, source=Source.REPLAY)

    def keep(self, task: str, success: Trajectory) -> None:
        # The task that succeeded last stands last; the first is the one to be forgotten.
        successes = self._kept.pop(task, deque(maxlen=self._size))
        successes.append(success)
        self._kept[task] = successes
        if len(self._kept) > self._tasks:
            del self._kept[next(iter(self._kept))]

    def state(self) -> JSON:
        kept = {task: [b64encode(encode(t)).decode() for t in successes] for task, successes in self._kept.items()}
        return {"kept": kept, "replayed": self._drawn}

    def restore(self, state: JSON) -> None:
        stored: Mapping[str, list[str]] = state["kept"]
        self._kept = {
            task: deque((decode(b64decode(record)) for record in records), self._size)
            for task, records in stored.items()
        }
        self._drawn = int(state["replayed"])


class ReplayOnAllFail:
    """Puts one earlier success of the task in the place of the first member of a group that learned nothing.

    Such a group has a mean return below `mean` and a deviation below `deviation`. Only what the policy sampled by
    itself is kept, and a group is read before its own successes are added.
    """

    def __init__(self, *, size: int = 8, tasks: int = 1000, mean: float = 0.2, deviation: float = 0.05) -> None:
        self._successes, self._mean, self._deviation = Successes(size, tasks), mean, deviation

    def __call__(self, groups: Sequence[Group]) -> Sequence[Group]:
        found = [self._helped(group) for group in groups]
        for group in groups:
            for trajectory in group.trajectories:
                if trajectory.success and trajectory.source is Source.POLICY:
                    self._successes.keep(group.task.id, trajectory)
        return found

    def state(self) -> JSON:
        return self._successes.state()

    def restore(self, state: JSON) -> None:
        self._successes.restore(state)

    def _helped(self, group: Group) -> Group:
        returns = [trajectory.reward for trajectory in group.trajectories]
        failed = len(returns) > 1 and np.mean(returns) < self._mean and np.std(returns, ddof=1) < self._deviation
        member = self._successes.draw(group) if failed else None
        return group if member is None else replace(group, trajectories=(member, *group.trajectories[1:]))


def arpo_replay(
    *,
    size: int = 8,
    tasks: int = 1000,
    scale: Scale = "group",
    aggregate: AggregationName = "token_mean",
    objective: Clipped = REPLAY_CLIP,
) -> Method:
    """GRPO with one earlier success in each group that only fails (ARPO for GUI agents, 2025).

    `size` successes are kept of each of `tasks` tasks; the source keeps all tasks. Its format reward is a reward model.
    """
    return Method(
        "arpo_replay",
        EpisodeCredit(scale=scale),
        aggregate_by(aggregate),
        objective.build,
        curations=(ReplayOnAllFail(size=size, tasks=tasks),),
    )
