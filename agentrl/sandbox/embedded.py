"""The sandbox `embedded`: an interpreter of a part of Python, in Rust, without files, network or system calls.

Chance and clock begin the same in every session, so that an episode repeats itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time

from agentrl.errors import InfrastructureFault, MissingDependencyError
from agentrl.sandbox.echo import with_echo, without_binding
from agentrl.sandbox.printed import Printed
from agentrl.sandbox.protocol import CODE_LIMIT, Abilities, Limit, Limits, Ran, lacks

try:
    import pydantic_monty as monty
except ImportError as error:
    raise MissingDependencyError(
        "the sandbox 'embedded' needs pydantic-monty, which is not installed. "
        'Run: pip install "agentrl-framework[sandbox]"'
    ) from error

_GRACE = 2.0
"Seconds beyond a run's own limit after which its process is killed."
_CLOCK = datetime.datetime(2026, 1, 1)
_DEPTH = 400
"Calls within calls, as little as the interpreter's process can always take."


class Embedded:
    """Implements `protocol.Sandbox`: a process of the interpreter for each session, started in milliseconds."""

    abilities = Abilities(commands=False, snapshots="exact")

    def __init__(self, *, seed: int = 0) -> None:
        """seed: what `random` draws in a new session."""
        self._seed = seed

    async def open(self, limits: Limits, snapshot: bytes | None = None) -> EmbeddedSession:
        session = EmbeddedSession(limits, self._seed)
        await session.begin(snapshot)
        return session

    async def close(self) -> None:
        """Nothing waits."""


class EmbeddedSession:
    """Names live until a limit of time or memory ends a run: what such a run leaves behind cannot be trusted."""

    def __init__(self, limits: Limits, seed: int) -> None:
        self._limits, self._seed = limits, seed
        self._stack = contextlib.AsyncExitStack()
        self._live: monty.AsyncMontySession | None = None

    async def begin(self, snapshot: bytes | None) -> None:
        """A fresh interpreter. Raises `InfrastructureFault`."""
        limits = self._limits
        try:
            pool = monty.AsyncMonty(
                min_processes=1, max_processes=1, request_timeout=limits.seconds + _GRACE, checkout_timeout=10.0
            )
            await self._stack.enter_async_context(pool)
            live = await self._stack.enter_async_context(
                pool.checkout(
                    limits={
                        "max_feed_duration_secs": limits.seconds,
                        "max_memory": limits.memory,
                        "max_recursion_depth": _DEPTH,
                    },
                    os_policy={"datetime": _CLOCK, "sleep": "zero", "random_start": {"seed": self._seed}},
                )
            )
            if snapshot is not None:
                await live.load_session(snapshot)
            self._live = live
        except (OSError, RuntimeError, ValueError, monty.MontyError) as error:
            await self.close()
            what = "go on from a snapshot" if snapshot else "start"
            raise InfrastructureFault(f"the sandbox 'embedded' cannot {what}: {error}") from error
        except asyncio.CancelledError:
            await self.close()
            raise

    async def run(self, code: str) -> Ran:
        if len(code) > CODE_LIMIT:
            return Ran("", f"the code has {len(code):,} characters; {CODE_LIMIT:,} are allowed.", 1)
        began = time.perf_counter()
        if self._live is None:
            await self.begin(None)
        printed = Printed(self._limits.output)
        shown = with_echo(code)
        error = await self._feed(shown, printed)
        if shown != code and isinstance(error, monty.MontySyntaxError):
            # Nothing of it has run: say what is wrong with the code as it was written.
            error = await self._feed(code, printed)
        limit = _limit_of(error)
        lost = limit != "" or isinstance(error, monty.MontyCrashedError)
        if lost:
            await self.close()
        if not limit and _was_killed(error):
            raise InfrastructureFault(f"a session of the sandbox 'embedded' is gone: {error}") from error
        if error is not None:
            printed.add("stderr", f"{_words(error)}\n")
        return Ran(
            printed.text("stdout"),
            printed.text("stderr"),
            None if lost else int(error is not None),
            limit or ("output" if printed.over else ""),
            lost,
            time.perf_counter() - began,
        )

    async def _feed(self, code: str, printed: Printed) -> monty.MontyError | None:
        assert self._live is not None
        try:
            # The value of a last expression would be built here, as large as the code likes: None takes its place.
            await self._live.feed_run(f"{code}\nNone", print_callback=printed.add)
        except monty.MontyError as error:
            return error
        return None

    async def command(self, *words: str) -> Ran:
        raise lacks("embedded", "programs", "'bubblewrap' or 'docker'")

    async def snapshot(self) -> bytes:
        if self._live is None:
            await self.begin(None)
        assert self._live is not None
        try:
            kept: bytes = await self._live.dump()
            return kept
        except monty.MontyError as error:
            raise InfrastructureFault(f"the sandbox 'embedded' cannot be kept: {error}") from error

    async def close(self) -> None:
        self._live = None
        await self._stack.aclose()


def _limit_of(error: monty.MontyError | None) -> Limit:
    """The limit that ended the interpreter, if one did."""
    if isinstance(error, monty.MontyCrashedError):
        return "time" if error.timed_out else ""
    if error is None:
        return ""
    inner = error.exception()
    if isinstance(inner, TimeoutError) and "time limit exceeded" in str(inner):
        return "time"
    if isinstance(inner, MemoryError) and "memory limit" in str(inner):
        return "memory"
    return ""


def _was_killed(error: monty.MontyError | None) -> bool:
    """By somebody else: code in it can crash its process, and has no way to send a signal."""
    return isinstance(error, monty.MontyCrashedError) and "SIGKILL" in str(error)


def _words(error: monty.MontyError) -> str:
    if isinstance(error, monty.MontyRuntimeError | monty.MontySyntaxError):
        return without_binding(error.display())
    return str(error)
