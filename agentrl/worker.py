"""A daemon thread that runs one environment's blocking code, one call after another.

A thread cannot be killed: a call that does not come back is left behind as a daemon, and the caller goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Job:
    function: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[tuple[Any, BaseException | None]]
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    running: bool = False


class Worker:
    """Started by its first call, always the same thread, so that code with thread affinity (sqlite) works."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.abandoned = False
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._last: _Job | None = None
        # A worker that nobody stopped ends with its owner.
        weakref.finalize(self, self._jobs.put, None)

    async def run(self, function: Callable[[], T]) -> T:
        """What `function` returns or raises. Cancelling stops the waiting, not the thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=_serve, args=(self._jobs,), name=self.name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        self._last = _Job(function, loop, future)
        self._jobs.put(self._last)
        value, error = await future
        if error is not None:
            raise error
        result: T = value
        return result

    def frame(self) -> FrameType | None:
        """The innermost frame that the thread is in now; None where it does nothing."""
        if self._thread is None or self._thread.ident is None or self._last is None or not self._last.running:
            return None
        return sys._current_frames().get(self._thread.ident)

    def abandon(self) -> None:
        """Leave a thread that hangs. Should its call come back after all, the thread ends."""
        self.abandoned = True
        self._jobs.put(None)

    def stop(self) -> None:
        """The thread ends after its last call."""
        self._jobs.put(None)


def _serve(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        if job.future.cancelled():
            continue
        outcome: tuple[Any, BaseException | None]
        job.running = True
        try:
            outcome = (job.context.run(job.function), None)
        except BaseException as error:
            outcome = (None, error)
        job.running = False
        # The loop may be closed by now: a run that was stopped does not wait for its threads.
        with contextlib.suppress(RuntimeError):
            job.loop.call_soon_threadsafe(_settle, job.future, outcome)
        del job, outcome


def _settle(
    future: asyncio.Future[tuple[Any, BaseException | None]], outcome: tuple[Any, BaseException | None]
) -> None:
    if not future.done():
        future.set_result(outcome)
