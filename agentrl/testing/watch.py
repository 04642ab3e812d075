"""What an episode does besides its answers: blocking the event loop, leaving processes, threads and tasks behind.

A blocked loop is blamed on a line only where that line was really seen: the process being put to sleep by a busy
machine is no fault of the author, and neither is what is loaded once, at its first use.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from agentrl.blame import codes_of, own_place
from agentrl.remote.pool import WORKERS

_TICK = 0.02
"Seconds between two looks."
_SEEN_TICKS = 4
"Looks in a row that must find the author's code before it is blamed, or this much processor time spent in it:"
_SEEN_SECONDS = 0.15


@dataclass(frozen=True, slots=True)
class Block:
    seconds: float
    where: str
    "file:line of the author's code that held the loop."


class LoopWatch:
    """Looks at the event loop from a thread of its own and records each time that `owner` held it beyond `limit`."""

    def __init__(self, owner: type, limit: float) -> None:
        self.blocks: list[Block] = []
        self._owner = owner
        self._limit = limit
        self._beat = time.monotonic()
        self._armed = False
        self._stop = threading.Event()

    def longest(self) -> Block | None:
        return max(self.blocks, key=lambda block: block.seconds, default=None)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Run inside the loop; only `armed` time counts."""
        thread = threading.Thread(target=self._look, args=(threading.get_ident(),), name="agentrl-watch", daemon=True)
        beating = asyncio.get_running_loop().create_task(self._beats())
        thread.start()
        try:
            yield
        finally:
            beating.cancel()
            self._stop.set()
            thread.join()

    async def _beats(self) -> None:
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(_TICK)

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        self._beat = time.monotonic()
        self._armed = True
        try:
            yield
        finally:
            self._armed = False

    def _look(self, ident: int) -> None:
        ticks, spent, beat, told = 0, 0.0, -1.0, -1.0
        while not self._stop.wait(_TICK):
            frame = sys._current_frames().get(ident)
            seen = self._within(frame) if self._armed else None
            if seen is None or beat != self._beat:
                ticks, spent, beat = 0, _processor_seconds(ident), self._beat
            if seen is None:
                continue
            ticks += 1
            held = time.monotonic() - beat
            sure = ticks >= _SEEN_TICKS or _processor_seconds(ident) - spent >= _SEEN_SECONDS
            if held > self._limit and sure:
                # Seen again and longer, it is still the same one.
                self.blocks[len(self.blocks) - (told == beat) :] = [Block(held, seen)]
                told = beat

    def _within(self, frame: FrameType | None) -> str | None:
        """The author's innermost line; None where no method of `owner` runs.

        What called the method is left out: a test may stand in the author's own file.
        """
        called: list[FrameType] = []
        while frame is not None:
            called.insert(0, frame)
            frame = frame.f_back
        codes = set(codes_of(self._owner))
        first = next((place for place, call in enumerate(called) if call.f_code in codes), None)
        if first is None:
            return None
        return own_place(self._owner, [(call.f_code.co_filename, call.f_lineno) for call in called[first:]])


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Processes and threads that were not there before."""

    processes: tuple[str, ...]
    threads: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"process {process}" for process in self.processes] + [f"thread {name}" for name in self.threads]
        return ", ".join(parts)

    def __bool__(self) -> bool:
        return bool(self.processes or self.threads)


class Census:
    """Counts the living before, and names who is new after."""

    def __init__(self) -> None:
        self._processes = set(_descendants())
        self._threads = set(threading.enumerate())

    def leftovers(self, patience: float) -> Leftovers:
        """Who is new and still there after `patience` seconds. Blocking."""
        end = time.monotonic() + patience
        while True:
            alive = _descendants()
            # A worker that waits for its next episode is ours; what it started for its last one is not.
            fresh = sorted(set(alive) - self._processes - WORKERS.pids())
            processes = tuple(f"{pid} ({alive[pid]})" for pid in fresh)
            new = [thread for thread in threading.enumerate() if thread not in self._threads]
            found = Leftovers(processes, tuple(thread.name for thread in new))
            if not found or time.monotonic() > end:
                return found
            time.sleep(0.01)


def _descendants() -> dict[int, str]:
    """Living descendants of this process: pid to command. Empty where the system has no /proc."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            head, _, tail = entry.read_text().rpartition(")")
            state, parent = tail.split()[:2]
            pid = int(entry.parent.name)
            if state not in "ZX":
                parents[pid] = int(parent)
                names[pid] = head.partition("(")[2]
    found: dict[int, str] = {}
    frontier = {_own_pid()}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier and pid not in found}
        found |= {pid: names[pid] for pid in frontier}
    return found


def _own_pid() -> int:
    return int(Path("/proc/self").readlink().name) if Path("/proc/self").exists() else -1


def _processor_seconds(ident: int) -> float:
    """Processor time of a thread; 0.0 where the system cannot tell."""
    clock = getattr(time, "pthread_getcpuclockid", None)
    return time.clock_gettime(clock(ident)) if clock is not None else 0.0
