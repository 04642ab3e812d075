"""Groups that go back to an error of an earlier batch: it becomes a prompt of its own, from which the policy recovers.

What a recovery begins with was sampled in another group: it is context, never trained on and never stale.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from agentrl.errors import ConfigError
from agentrl.protocols import Demands, Rollout, TaskSampler
from agentrl.rollout.strategies.diagnosis import Diagnosis
from agentrl.rollout.strategies.pool import PoolingSampler, read_order
from agentrl.rollout.strategies.rounds import play_roots
from agentrl.types import Task, Trajectory


@dataclass(frozen=True, slots=True)
class Fission:
    """Fission-GRPO (arXiv 2601.15625): failed calls are pooled, and recovered from in groups of their own.

    The errors of a batch enter a last-in first-out pool of `size` when the batch is cut. Of the groups that follow,
    the `share` is given to the pool while it has any: all members of such a group go on from behind one refused
    call, with the `diagnosis` added to what the environment said. The others are plain groups. The paper keeps both
    kinds in batches of their own and waits until enough errors have come together; here they share a batch, and
    `share` bounds what recoveries cost. It leaves the pool's size open. Made for the method `fission`.
    """

    size: int = 64
    share: float = 0.5
    diagnosis: Diagnosis = field(default_factory=Diagnosis)

    def __post_init__(self) -> None:
        if self.size < 1 or not 0.0 < self.share < 1.0:
            raise ConfigError(
                f"the pool's size is {self.size} and share {self.share:g}; allowed are 1 and above, and from 0 to 1."
            )

    @property
    def demands(self) -> Demands:
        return Demands(group=2, forks=True)

    def around(self, sampler: TaskSampler) -> TaskSampler:
        return PoolingSampler(sampler, self.size, self.share)

    async def close(self) -> None:
        if self.diagnosis.writer is not None:
            await self.diagnosis.writer.close()

    async def run(self, task: Task, size: int, rollout: Rollout) -> Sequence[Trajectory]:
        place = read_order(task)
        if place is None:
            return await play_roots(task, 0, size, rollout)
        parent, at = await rollout.recall(place[0]), place[1]
        told = await self.diagnosis.of(parent, at, rollout)
        return await asyncio.gather(*(rollout.fork(parent, at, member, told=told) for member in range(size)))
