"""The training loop, which reads as the method: publish, collect, credit, update, report, save.

There is one loop. Staleness is decided in `collect`, which never returns a group older than its bound: with bound 0
the run is on-policy, with bound k it is asynchronous. A cancelled loop stops between batches, never inside one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Protocol, TypeVar

from agentrl.batch import TrainingBatch
from agentrl.types import Group

T = TypeVar("T")


class Run(Protocol):
    """What the loop needs of a run; `agentrl.runs.run` is the real one."""

    batch: int
    "Batches behind the weights in hand: 0 at the start, what the checkpoint says after a resume."
    batches: int
    "How many to train on."

    async def publish(self) -> int:
        """Bring the learner's weights to the engines; the policy version that they now sample with."""
        ...

    async def collect(self, version: int) -> Sequence[Group]:
        """Whole groups, none of them staler than the bound at `version`."""
        ...

    async def credit(self, groups: Sequence[Group]) -> TrainingBatch:
        """The groups as columns, with advantages and global denominators."""
        ...

    async def update(self, batch: TrainingBatch) -> None:
        """The optimiser's updates on the batch, and what learns beside the policy; then `batch` is one higher."""
        ...

    async def report(self) -> None:
        """Metrics, panel, trackers and, when due, an evaluation on held-out tasks."""
        ...

    async def save(self, *, final: bool = False) -> None:
        """A checkpoint when one is due, or at the end; only then are the spent groups spent for good."""
        ...


async def train(run: Run) -> None:
    """Train until `run.batches` are done. A resumed run starts at its checkpoint's `batch`; cancelling it saves."""
    try:
        while run.batch < run.batches:
            version = await run.publish()
            groups = await run.collect(version)
            batch = await run.credit(groups)
            await _to_the_end(run.update(batch))
            await run.report()
            await run.save()
        await run.publish()
    finally:
        await _to_the_end(run.save(final=True))


async def _to_the_end(work: Awaitable[T]) -> T:
    """Wait for `work` even when cancelled meanwhile: half an update or half a checkpoint helps nobody."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
