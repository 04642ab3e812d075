"""What a run or an evaluation is doing, in a small file that others may read while it lives: `agentrl doctor RUN` does.

The file is replaced whole every few seconds, beside the event loop, and goes away with a run that ends in order; one
that is left over says where a run was killed.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import socket
import time
import weakref
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import msgspec

from agentrl.errors import StoreError
from agentrl.files import write_whole
from agentrl.protocols import Engine, EngineHealth
from agentrl.rollout.engine import RolloutEngine

FILE, STACKS = "pulse.json", "stacks.txt"
EVERY = 3.0
"Seconds between two beats."
LISTED = 32
"Episodes that are named, those that wait longest."
HEALTH_DEADLINE = 2.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """An episode in flight."""

    episode: str
    stage: str
    "What it waits for."
    seconds: float


@dataclass(frozen=True, slots=True)
class Pulse:
    """One beat."""

    pid: int
    started: str
    "Of the process, as the kernel counts it: a later process of the same number has another."
    host: str
    time: float
    "Unix time of this beat."
    doing: str
    doing_for: float
    "Seconds."
    batch: int
    batches: int
    episodes: int
    "In flight."
    stages: Mapping[str, int]
    "How many wait for what."
    longest: tuple[Waiting, ...]
    progress: float | None
    "Seconds since any episode went from one wait to the next; None where none is in flight."
    engine: EngineHealth | None
    answers: bool = False
    "At SIGUSR1 the process writes where each of its threads stands into `stacks.txt`, also one that is held up."


class Heart:
    """Writes the pulse of the run or evaluation in `folder`, within `async with`.

    What it looks at is set as it comes to be.
    """

    def __init__(self, folder: Path, batches: int = 0, every: float = EVERY) -> None:
        self.engine: Engine | None = None
        self._path = folder / FILE
        self._batch, self._batches = 0, batches
        self._every = every
        self._rollouts: weakref.WeakSet[RolloutEngine] = weakref.WeakSet()
        self._doing, self._since = "being built", time.monotonic()
        self._started = started(os.getpid())
        self._beating: asyncio.Task[None] | None = None
        self._stacks: TextIO | None = None

    def enter(self, doing: str, batch: int | None = None) -> None:
        """`batch` of them are done, where that is known."""
        self._doing, self._since = doing, time.monotonic()
        self._batch = self._batch if batch is None else batch

    def watch(self, rollout: RolloutEngine) -> RolloutEngine:
        """`rollout`, whose episodes are named from now on for as long as it lives."""
        self._rollouts.add(rollout)
        return rollout

    async def __aenter__(self) -> Self:
        self._stacks = _answering(self._path.with_name(STACKS))
        self._beating = asyncio.create_task(self._beat(), name="pulse")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait([self._beating])
        await asyncio.to_thread(self._path.unlink, True)
        if self._stacks is not None:
            faulthandler.unregister(signal.SIGUSR1)
            self._stacks.close()
            await asyncio.to_thread(self._path.with_name(STACKS).unlink, True)

    async def look(self) -> Pulse:
        waiting = [entry for rollout in list(self._rollouts) for entry in rollout.waiting()]
        waiting.sort(key=lambda entry: -entry[2])
        quiet = [time.monotonic() - rollout.last_progress for rollout in list(self._rollouts)] if waiting else []
        return Pulse(
            pid=os.getpid(),
            started=self._started,
            host=socket.gethostname(),
            time=time.time(),
            doing=self._doing,
            doing_for=time.monotonic() - self._since,
            batch=self._batch,
            batches=self._batches,
            episodes=len(waiting),
            stages=dict(Counter(stage for _, stage, _ in waiting).most_common()),
            longest=tuple(Waiting(*entry) for entry in waiting[:LISTED]),
            progress=min(quiet, default=None),
            engine=await self._health(),
            answers=self._stacks is not None,
        )

    async def _health(self) -> EngineHealth | None:
        if self.engine is None:
            return None
        try:
            async with asyncio.timeout(HEALTH_DEADLINE):
                return await self.engine.health()
        except Exception as error:
            said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            return EngineHealth(ok=False, detail=f"asked for its health: {said}")

    async def _beat(self) -> None:
        while True:
            # A disk that takes no pulse has more to say elsewhere: the run is not stopped for it.
            with suppress(StoreError):
                await asyncio.to_thread(write_whole, self._path, msgspec.json.encode(await self.look()))
            await asyncio.sleep(self._every)


def read_pulse(folder: Path) -> Pulse | None:
    """The last beat of the run in `folder`; None where it ended in order or never beat. Raises `StoreError`."""
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Pulse)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise StoreError(f"{path} cannot be read: {error}. Delete it: the run writes another.") from error


def alive(pulse: Pulse) -> bool | None:
    """Whether the process still is; None where it ran on another machine."""
    if pulse.host != socket.gethostname():
        return None
    try:
        os.kill(pulse.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return started(pulse.pid) == pulse.started


def stacks_of(folder: Path, pulse: Pulse, deadline: float = 3.0) -> list[str]:
    """Where the main thread of a living run stands now, innermost call first; empty where it cannot be asked."""
    path = folder / STACKS
    if not pulse.answers or not alive(pulse) or not path.is_file():
        return []
    before = path.stat().st_size
    os.kill(pulse.pid, signal.SIGUSR1)
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        told = path.read_bytes()[before:].decode(errors="replace")
        # Python's own thread is the one that takes signals, and it is written last or is the only one.
        _, found, main = told.rpartition("Current thread ")
        if found and main.endswith("\n"):
            return [line.strip() for line in main.splitlines()[1:] if line.startswith("  File ")]
        time.sleep(0.02)
    return []


def started(pid: int) -> str:
    """When a process began, in the kernel's ticks since boot; empty where the kernel does not say."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # The name, in brackets, may hold anything.
    return stat.rpartition(")")[2].split()[19]


def _answering(path: Path) -> TextIO | None:
    """The open file that stacks go to; None where the signal is somebody else's, or this is not the main thread."""
    if signal.getsignal(signal.SIGUSR1) not in (signal.SIG_DFL, signal.SIG_IGN):
        return None
    try:
        # What it goes back to afterwards: a doctor who read the last beat may ask a moment late.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        file = path.open("w", encoding="utf-8")
    except (OSError, ValueError):
        return None
    faulthandler.register(signal.SIGUSR1, file)
    return file
