"""The processes of a session, held still from outside between two of its runs.

Nothing is touched but what the session's own `/proc` shows, and nothing in a session can undo what is done here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import weakref

from agentrl.errors import InfrastructureFault

_LOOKS, _QUICK = 500, 8
"Looks at a session until it is given up, and how many of them follow each other quickly."
_ENDED = frozenset({"Z", "X"})
"States of a thread that never runs again."
_GONE = (FileNotFoundError, ProcessLookupError)
"What a process answers that ends under our eyes."
_FOLDER = os.O_RDONLY | os.O_DIRECTORY


class Freezer:
    """Of one namespace of processes: the first is the backend's, the next one the worker, the others are the code's.

    Those others are killed: their run is over. The worker is stopped, with every thread that the code began in it.
    """

    def __init__(self, first: int, worker: str) -> None:
        """first: the namespace's first process, as this one counts. worker: what the next one's command line holds.

        Made before any code has run. Raises `InfrastructureFault` where `first` is no such process, or may not be seen.
        """
        try:
            self._proc = _Folder(f"/proc/{first}/root/proc")
            inside = self._numbers()
            # A number may have come to name somebody else: whose processes these are is read, not assumed.
            if len(inside) != 2 or worker.encode() not in self._proc.read(f"{inside[-1]}/cmdline"):
                raise ProcessLookupError(f"process {first} and {len(inside) - 1} beside it are no session")
            self._worker = _Folder(str(inside[-1]), self._proc)
        except OSError as error:
            raise InfrastructureFault(f"the processes of a session cannot be held still: {error}.") from error

    async def freeze(self) -> bool:
        """False where something goes on whatever is done, as threads that wake each other without end."""
        try:
            for look in range(_LOOKS):
                if self._is_still():
                    return True
                if look < _QUICK:
                    # The event loop's own clock is too coarse: most sessions stand still in half of this.
                    time.sleep(5e-5)  # noqa: ASYNC251
                else:
                    await asyncio.sleep(0.001)
        except OSError as error:
            raise InfrastructureFault(f"the processes of a session cannot be held still: {error}.") from error
        return False

    def thaw(self) -> None:
        self._worker.send(signal.SIGCONT)

    def _is_still(self) -> bool:
        """Stop the worker and kill the others; whether that has come about."""
        self._worker.send(signal.SIGSTOP)
        before = self._worker.threads()
        # A namespace counts on from 300 when its numbers are used up, so the first two stay the first.
        others = [number for number in self._numbers()[2:] if not self._end(number)]
        # Only who runs can wake the worker: nobody else was there, and no thread of it ran while that was seen.
        stopped = {state for state, _ in before.values()} <= {"T", *_ENDED}
        return not others and stopped and self._worker.threads() == before

    def _numbers(self) -> list[int]:
        return sorted(int(name) for name in self._proc.names() if name.isdigit())

    def _end(self, number: int) -> bool:
        """Whether it runs no more; if it does, it is killed."""
        try:
            process = _Folder(str(number), self._proc)
        except _GONE:
            return True
        process.send(signal.SIGKILL)
        return {state for state, _ in process.threads().values()} <= _ENDED


class _Folder:
    """Of `/proc`: that of a process names it for good, where a number may come to name another."""

    def __init__(self, path: str, within: _Folder | None = None) -> None:
        self._place: int = os.open(path, _FOLDER, dir_fd=within._place if within else None)
        weakref.finalize(self, os.close, self._place)

    def names(self, path: str = ".") -> list[str]:
        place = os.open(path, _FOLDER, dir_fd=self._place)
        try:
            return os.listdir(place)  # noqa: PTH208 (a path would not do for what has none)
        finally:
            os.close(place)

    def read(self, path: str) -> bytes:
        place = os.open(path, os.O_RDONLY, dir_fd=self._place)
        try:
            return os.read(place, 1 << 20)
        finally:
            os.close(place)

    def send(self, number: int) -> None:
        """A signal to this process; nothing where it is no more."""
        with contextlib.suppress(*_GONE):
            signal.pidfd_send_signal(self._place, number)

    def threads(self) -> dict[str, tuple[str, bytes]]:
        """State of each, and how often it has given up its core. Empty where the process is no more."""
        found = {}
        with contextlib.suppress(*_GONE):
            for name in self.names("task"):
                with contextlib.suppress(*_GONE):
                    told = self.read(f"task/{name}/status")
                    state = told.partition(b"\nState:\t")[2][:1].decode()
                    found[name] = (state, told[told.rfind(b"\nvoluntary_ctxt_switches") :])
        return found
