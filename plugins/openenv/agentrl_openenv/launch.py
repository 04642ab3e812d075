"""Servers that are started here: each waits for its next episode, and ends whole with what it started.

A server takes as many sessions at once as it is said to; where all are taken another one is started. One in which
anything went wrong is not given out again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx

from agentrl import EnvironmentFault
from agentrl.errors import ConfigError
from agentrl.ports import free_port

GRACE_SECONDS = 3.0
TAIL_LINES = 12


@dataclass(frozen=True, slots=True)
class Program:
    """How to start a server. Raises `ConfigError`."""

    app: str = ""
    "`package.module:app`, started with uvicorn."
    command: tuple[str, ...] = ()
    "Of any other; `{port}` in it stands for a free port of this machine."
    sessions: int = 1
    "That one server takes at once; for more, others are started beside it."
    within: float = 300.0
    "Seconds until it must answer."
    keep: float = 300.0
    "Seconds that it waits for its next session before it is ended."

    def __post_init__(self) -> None:
        if bool(self.app) == bool(self.command):
            raise ConfigError(f"app is {self.app!r} and command {list(self.command)}; one of them starts the server.")
        if not any("{port}" in word for word in self.words):
            raise ConfigError(f"command {list(self.command)} has no {{port}}: it tells the server where to listen.")

    @property
    def words(self) -> tuple[str, ...]:
        """The command line."""
        if self.command:
            return self.command
        return (sys.executable, "-m", "uvicorn", self.app, "--host", "127.0.0.1", "--port", "{port}")


class Server:
    """One running server. Not thread-safe; used by one event loop at a time."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.taken = 0
        self.fit = True
        "Nothing went wrong in it: it may serve another episode."
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._command = [word.replace("{port}", str(port)) for word in program.words]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with its process)
        keeper = [sys.executable, "-I", str(Path(__file__).with_name("keeper.py")), str(GRACE_SECONDS)]
        self._process = subprocess.Popen(
            [*keeper, *self._command],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env=os.environ | {"PORT": str(port), "HOST": "127.0.0.1"},
        )
        self.pid = self._process.pid
        # Also where the owner is dropped or the driver exits.
        self._finish = weakref.finalize(self, _end, self._process, self._log)
        self._up: asyncio.Task[None] | None = None
        self._leaving: asyncio.TimerHandle | None = None

    @property
    def alive(self) -> bool:
        return self._finish.alive and self._process.poll() is None

    async def ready(self) -> None:
        """It answers. Raises `EnvironmentFault` where it does not in time, with what it printed last."""
        if self._up is None:
            self._up = asyncio.create_task(self._come_up())
        await asyncio.shield(self._up)

    async def _come_up(self) -> None:
        until = asyncio.get_running_loop().time() + self.program.within
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=2.0) as http:
            while asyncio.get_running_loop().time() < until:
                if not self.alive:
                    raise self.ended("before it answered")
                with contextlib.suppress(httpx.HTTPError):
                    if (await http.get(f"{self.url}/health")).is_success:
                        return
                await asyncio.sleep(0.05)
        raise self.fault(f"did not answer GET {self.url}/health within {self.program.within:g} s")

    async def died(self, within: float) -> bool:
        """Whether it is gone, or goes within so many seconds."""
        try:
            await asyncio.to_thread(self._process.wait, within)
        except subprocess.TimeoutExpired:
            return False
        return True

    def ended(self, why: str) -> EnvironmentFault:
        return self.fault(f"ended with exit code {self._process.returncode} {why}")

    def fault(self, why: str) -> EnvironmentFault:
        """Names the command and what it printed last."""
        self.fit = False
        size = os.fstat(self._log.fileno()).st_size if not self._log.closed else 0
        printed = os.pread(self._log.fileno(), 1 << 14, max(0, size - (1 << 14))) if size else b""
        tail = "\n".join(printed.decode(errors="replace").strip().splitlines()[-TAIL_LINES:])
        shown = f" It printed:\n{tail}" if tail else " It printed nothing."
        return EnvironmentFault(f"the OpenEnv server `{' '.join(self._command)}` {why}.{shown}")

    def stay(self, seconds: float) -> None:
        """Wait for the next session, and end after `seconds` without one."""
        loop = asyncio.get_running_loop()
        self._leaving = loop.call_later(seconds, lambda: loop.run_in_executor(None, self.end))

    def take(self) -> None:
        self.taken += 1
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    def end(self) -> None:
        """May be called twice. Blocks while the server ends, which it is given `GRACE_SECONDS` for."""
        self.fit = False
        self._finish()


class Servers:
    """The servers of this process, by program."""

    def __init__(self) -> None:
        self._running: dict[Program, list[Server]] = {}

    async def take(self, program: Program) -> Server:
        """A server that answers and has a free session. Raises `EnvironmentFault`."""
        running = self._running.setdefault(program, [])
        running[:] = [server for server in running if server.fit and server.alive]
        server = next((server for server in running if server.taken < program.sessions), None)
        if server is None:
            server = Server(program)
            running.append(server)
        server.take()
        try:
            await server.ready()
        except BaseException:
            await self.give_back(server)
            raise
        return server

    async def give_back(self, server: Server) -> None:
        """Its session is closed."""
        server.taken -= 1
        if server.taken:
            return
        if server.fit and server.alive and server.program.keep > 0:
            server.stay(server.program.keep)
            return
        running = self._running.get(server.program, [])
        if server in running:
            running.remove(server)
        await asyncio.to_thread(server.end)


SERVERS = Servers()
"What is left at the end of the process ends with it."


def _end(process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(GRACE_SECONDS + 6)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    log.close()
