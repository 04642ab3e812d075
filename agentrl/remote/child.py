"""One worker process as its driver sees it: started, asked with a deadline, killed with everything that it started.

A worker that misses a deadline, dies or answers nonsense is never asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec

from agentrl.errors import InfrastructureFault
from agentrl.remote import wire
from agentrl.remote.address import Address

_PATIENCE = 2.0
"Seconds that a worker has to end itself after a deadline, before its driver kills it."
_CHUNK = 1 << 18
_TAIL_LINES = 8
_LOG_LIMIT = 1 << 20
"Bytes of printed text that a worker keeps from one episode to the next."
_FRAME = re.compile(r'^  File "(.+)", line (\d+) in ', re.MULTILINE)
# Not at the start of a line: what was printed before may have no end.
_STACK = re.compile(r"(Timeout \([\d:.]+\)!|Fatal Python error: .*)\n+(?=(?:Current thread|Thread|<no Python frame>))")


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended, or was ended."""

    what: str
    "In words: its exit code, its signal, or that it was late."
    late: bool
    killed: bool
    "By a SIGKILL that was not ours: as a rule the system's, short of memory."
    printed: str
    "The last lines that it wrote in this episode."
    frames: tuple[tuple[str, int], ...]
    "File and line of its last stack where it left one, outermost first."


def unreadable(error: Exception) -> Death:
    """Of a worker that answered something else."""
    return Death(f"answered what cannot be read ({error})", late=False, killed=False, printed="", frames=())


class Died(Exception):
    """The worker is gone; `death` says how."""

    def __init__(self, death: Death) -> None:
        super().__init__(death.what)
        self.death = death


class Child:
    """A running worker. One request at a time, awaited or (for what the seams want at once) blocking."""

    def __init__(self, address: Address) -> None:
        """Started, not yet heard of. Raises `InfrastructureFault` where the interpreter does not start."""
        self.address = address
        self.fit = True
        "It may serve another episode: nothing went wrong in it."
        self._log = _log_file()
        self._printed_before = 0
        self._inbox = wire.Inbox()
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        command = [address.python, "-I" if address.lent else "-P", str(Path(__file__).with_name("bootstrap.py"))]
        path = [] if address.lent else sys.path
        known = [json.dumps(value) for value in (path, dict(address.lent), dict(address.spare))]
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [*command, str(theirs.fileno()), *known],
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=self._log,
                    pass_fds=[theirs.fileno()],
                    # A Ctrl-C in the terminal is for the driver; and the group is killed as one.
                    start_new_session=True,
                )
            except OSError as error:
                self._socket.close()
                self._log.close()
                raise InfrastructureFault(f"no worker can be started with {address.python}: {error}.") from error
        self.pid = self._process.pid
        # Once, and also where the owner is dropped or the driver exits: a process id is soon another's.
        self._end = weakref.finalize(self, _end, self._process, self._socket, self._log)

    @property
    def usable(self) -> bool:
        """It may serve another episode, and nobody has ended it while it waited."""
        return self.fit and self._process.poll() is None

    def begin_episode(self) -> None:
        """What was printed before belongs to another episode."""
        size = os.fstat(self._log.fileno()).st_size
        if size > _LOG_LIMIT:
            os.ftruncate(self._log.fileno(), size := 0)
        self._printed_before = size

    async def ask(self, verb: str, body: Any, seconds: float) -> wire.Reply:
        """The worker's answer, also an error that it reports. Raises `Died`. A cancelled wait ends the worker."""
        sent = _request(verb, body, seconds)
        loop = asyncio.get_running_loop()
        with self._watched(seconds):
            async with asyncio.timeout(seconds + _PATIENCE):
                await loop.sock_sendall(self._socket, sent)
                while (got := self._inbox.take()) is None:
                    self._take_in(await loop.sock_recv(self._socket, _CHUNK))
            return self._read(got)

    def ask_now(self, verb: str, body: Any, seconds: float) -> wire.Reply:
        """The same, blocking: for the iterables of the seams, which are read without `await`."""
        sent = _request(verb, body, seconds)
        with self._watched(seconds):
            self._socket.settimeout(seconds + _PATIENCE)
            try:
                self._socket.sendall(sent)
                while (got := self._inbox.take()) is None:
                    self._take_in(self._socket.recv(_CHUNK))
            finally:
                self._socket.setblocking(False)
            return self._read(got)

    def kill(self) -> None:
        """End the worker and everything that it started. May be called twice."""
        self.fit = False
        self._end()

    @property
    def gone(self) -> bool:
        return not self._end.alive

    @contextlib.contextmanager
    def _watched(self, seconds: float) -> Iterator[None]:
        """Whatever ends the wait without an answer is the end of the worker."""
        try:
            yield
        except TimeoutError:
            raise self._died(f"did not answer within {seconds:g} s", late=True) from None
        except OSError:
            raise self._died(self._outcome()) from None
        except ValueError as error:
            raise self._died(f"answered what cannot be read ({error})") from None
        except BaseException:
            self.kill()
            raise

    def _take_in(self, some: bytes) -> None:
        if not some:
            raise ConnectionResetError("the worker hung up")
        self._inbox.add(some)

    def _read(self, got: bytes) -> wire.Reply:
        if len(self._inbox):
            # The next answer would be taken from it, for another question.
            raise ValueError(f"{len(self._inbox):,} bytes behind its answer")
        reply = msgspec.json.decode(got, type=wire.Reply)
        if reply.failed is not None:
            self.fit = False
        return reply

    def _died(self, what: str, *, late: bool = False) -> Died:
        killed = self._process.poll() == -signal.SIGKILL
        size = os.fstat(self._log.fileno()).st_size
        start = max(self._printed_before, size - _LOG_LIMIT)
        printed = os.pread(self._log.fileno(), max(0, size - start), start).decode(errors="replace")
        self.kill()
        frames: tuple[tuple[str, int], ...] = ()
        stacks = list(_STACK.finditer(printed))
        if stacks:
            late = late or stacks[-1][1].startswith("Timeout")
            frames = tuple((file, int(line)) for file, line in reversed(_FRAME.findall(printed, stacks[-1].end())))
            printed = printed[: stacks[-1].start()]
        tail = "\n".join(printed.strip().splitlines()[-_TAIL_LINES:])
        return Died(Death(what, late, killed, tail, frames))

    def _outcome(self) -> str:
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            return "closed its socket"
        if code >= 0:
            return f"ended with exit code {code}"
        return f"was ended by {signal.Signals(-code).name if -code in set(signal.Signals) else f'signal {-code}'}"


def _request(verb: str, body: Any, seconds: float) -> bytes:
    return wire.frame(wire.Request(verb, seconds, msgspec.Raw(wire.encode(body))))


def _log_file() -> IO[bytes]:
    log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with its child)
    # Appending: the worker goes on at the end after its driver cut the file.
    fcntl.fcntl(log, fcntl.F_SETFL, fcntl.fcntl(log, fcntl.F_GETFL) | os.O_APPEND)
    return log


def _end(process: subprocess.Popen[bytes], line: socket.socket, log: IO[bytes]) -> None:
    # The group has the leader's id, which stays taken while a member lives.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_PATIENCE)
    line.close()
    log.close()
