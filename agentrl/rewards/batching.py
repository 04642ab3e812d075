"""Puts what many episodes ask of one model into one pass.

Whatever arrives while a pass runs is computed together in the next; an idle model starts at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from agentrl.errors import InfrastructureFault

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batched(Generic[Item, Result]):
    """Calls `compute` with a list of items in a thread of its own, one pass at a time."""

    def __init__(self, compute: Callable[[Sequence[Item]], Sequence[Result]]) -> None:
        self._compute = compute
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._worker: asyncio.Task[None] | None = None
        # Always the same thread: each one would keep memory and a pool of compute threads of its own.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reward model")

    async def __call__(self, item: Item) -> Result:
        """Raises `InfrastructureFault` for whatever `compute` raised."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(), name="reward model")
        return await future

    async def close(self) -> None:
        """Ends the thread after the pass that runs."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])
        for _, future in self._waiting:
            future.cancel()
        self._thread.shutdown(wait=True)

    async def _work(self) -> None:
        while wanted := [(item, future) for item, future in self._waiting if not future.done()]:
            self._waiting.clear()
            loop = asyncio.get_running_loop()
            try:
                results = await loop.run_in_executor(self._thread, self._compute, [item for item, _ in wanted])
            except asyncio.CancelledError:
                for _, future in wanted:
                    future.cancel()
                raise
            except Exception as error:
                for _, future in wanted:
                    if not future.done():
                        # One exception each: one that is raised twice mixes tracebacks.
                        fault = InfrastructureFault(f"{type(error).__name__}: {error}")
                        fault.__cause__ = error
                        future.set_exception(fault)
            else:
                for (_, future), result in zip(wanted, results, strict=True):
                    if not future.done():
                        future.set_result(result)
        self._waiting.clear()
