"""A guest in a process of this machine: started with a socket for its line, killed with its whole session."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from agentrl.errors import InfrastructureFault
from agentrl.sandbox.freezer import Freezer
from agentrl.sandbox.guest import WORKER, Ending

_CHUNK = 1 << 16
_WORDS = 2_000
_DYING = 0.5
"Seconds."


class LocalGuest:
    """Implements `guest.Guest`. Ended at the latest when it is dropped or this process exits."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], folder: str, *, user: int | None, apart: bool
    ) -> None:
        """user: whom it runs as; None for the user of this process. apart: the process that is started has one
        child, the first of a namespace, and nothing inside can send it a signal. Raises `InfrastructureFault`.
        """
        self._apart, self._silent = apart, False
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        groups: list[int] | None = None if user is None else []
        try:
            self._process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE,
                env=dict(env),
                cwd=folder,
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=groups,
            )
        except (OSError, subprocess.SubprocessError) as error:
            self._socket.close()
            raise InfrastructureFault(f"{command[0]} cannot be started: {error}.") from error
        finally:
            theirs.close()
        self._end = weakref.finalize(self, _kill, self._process, self._socket)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def receive(self) -> bytes:
        try:
            data = await asyncio.get_running_loop().sock_recv(self._socket, _CHUNK)
        except OSError:
            data = b""
        self._silent = not data
        return data

    def freezer(self) -> Freezer | None:
        return Freezer(_child_of(self.pid), WORKER) if self._apart else None

    async def end(self) -> Ending:
        if self._silent and self._end.alive:
            # A dying process closes its line before the system can tell how it went.
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, _DYING)
        went = self._process.poll() if self._end.alive else None
        self._end()
        words = self._last_words()
        late = went in (-signal.SIGXCPU, 128 + signal.SIGXCPU)
        outside = self._apart and went == -signal.SIGKILL
        return Ending("time" if late else "", words, "somebody else killed its process" if outside else "")

    def _last_words(self) -> str:
        log = self._process.stderr
        if log is None or log.closed:
            return ""
        os.set_blocking(log.fileno(), False)
        with log, contextlib.suppress(OSError):
            return " ".join((os.read(log.fileno(), _WORDS)).decode("utf-8", "replace").split())
        return ""


def _child_of(parent: int) -> int:
    """Looked for in all of `/proc`, from the parent's number on: not every kernel tells a process's children."""
    numbers = [int(place.name) for place in Path("/proc").glob("[0-9]*")]
    for number in sorted(numbers, key=lambda number: (number < parent, number)):
        with contextlib.suppress(OSError):
            told = Path(f"/proc/{number}/stat").read_text(errors="replace")
            if int(told.rpartition(")")[2].split()[1]) == parent:
                return number
    raise InfrastructureFault(f"process {parent} has ended before its session began.")


def _kill(process: subprocess.Popen[bytes], line: socket.socket) -> None:
    line.close()
    # The group too: without a namespace of their own, children outlive their parent.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
