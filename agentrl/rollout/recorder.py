"""Brings finished trajectories to the ledger without holding up the event loop.

One write is under way at a time; whatever ends meanwhile goes into the next one together, so that a thousand
episodes share an fsync.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from agentrl.types import Trajectory


class Recorder:
    """Group commit: `record` returns once the trajectory is safe."""

    def __init__(self, write: Callable[[Sequence[Trajectory]], None]) -> None:
        self._write = write
        self._pending: list[tuple[Trajectory, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def record(self, trajectory: Trajectory) -> None:
        """Raises what the write raised (`StoreError`)."""
        safe: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((trajectory, safe))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._drain())
        await safe

    async def close(self) -> None:
        """Wait until everything that was handed over is written."""
        if self._writer is not None:
            await self._writer

    async def _drain(self) -> None:
        while self._pending:
            # Everything that ends in this turn of the loop shares the write.
            await asyncio.sleep(0)
            batch, self._pending = self._pending, []
            error: Exception | None = None
            try:
                await asyncio.to_thread(self._write, [trajectory for trajectory, _ in batch])
            except Exception as caught:
                error = caught
            for _, safe in batch:
                if safe.cancelled():
                    continue
                if error is None:
                    safe.set_result(None)
                else:
                    safe.set_exception(error)
