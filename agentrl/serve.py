"""The worker's side of an environment in a process: makes it, plays what is asked, and answers.

One request, one environment at a time, in the main thread. It ends when its driver is gone, however that died.
"""

from __future__ import annotations

import asyncio
import faulthandler
import inspect
import itertools
import math
import os
import random
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from agentrl.adapter import Adapter
from agentrl.blame import AuthorFault, frames_of
from agentrl.environment import Env, adapt
from agentrl.errors import AgentRLError, ConfigError, EnvironmentFault
from agentrl.protocols import Environment
from agentrl.remote import wire
from agentrl.remote.address import Address, locate
from agentrl.remote.declaration import declaration_of
from agentrl.types import ToolSpec

_GRACE = 1.0
"Seconds more for a world that cuts its own waits, so that it can say where; and to close one whose driver is gone."
_CHUNK = 1 << 18
_STDERR = 2


def serve(descriptor: int) -> None:
    """Answer requests until the driver hangs up, then end this process and all that it started."""
    line = socket.socket(fileno=descriptor)
    line.setblocking(False)
    threading.Thread(target=_outlive_no_driver, args=(descriptor,), name="agentrl-watch", daemon=True).start()
    try:
        asyncio.run(_converse(line))
    except BaseException:
        # Into the log of which the driver tells the last lines.
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os.killpg(0, signal.SIGKILL)


async def _converse(line: socket.socket) -> None:
    loop, inbox, stage = asyncio.get_running_loop(), wire.Inbox(), _Stage()
    while True:
        while (got := inbox.take()) is None:
            some = await loop.sock_recv(line, _CHUNK)
            if not some:
                return await stage.clear()
            inbox.add(some)
        request = msgspec.json.decode(got, type=wire.Request)
        # It needs no interpreter lock: it writes where everything stands and ends this process, whatever hangs.
        faulthandler.dump_traceback_later(request.seconds + stage.grace, exit=True, file=_STDERR)
        try:
            reply = await stage.answer(request)
        finally:
            faulthandler.cancel_dump_traceback_later()
        await loop.sock_sendall(line, reply)


class _Stage:
    """The one environment of this worker, and what is being read from it."""

    def __init__(self) -> None:
        self.grace = 0.0
        self._environment: Any = None
        self._tools: tuple[ToolSpec, ...] | None = None
        self._lines: dict[int, Iterator[Any]] = {}
        self._numbers = itertools.count()
        self._rng = random.Random()

    async def answer(self, request: wire.Request) -> bytes:
        kind, _ = wire.VERBS[request.verb]
        try:
            asked = None if kind is None else msgspec.json.decode(request.body, type=kind)
            body = msgspec.Raw(wire.encode(await self._play(request.verb, asked)))
            return wire.frame(wire.Reply(body, self._changed_tools()))
        except Exception as error:
            return wire.frame(wire.Reply(msgspec.Raw(b"null"), failed=_failure(error)))

    async def clear(self) -> None:
        """Close the environment, if there is one."""
        environment, self._environment = self._environment, None
        self._lines.clear()
        self._tools = None
        if environment is not None:
            await environment.close()

    async def _play(self, verb: str, asked: Any) -> Any:
        world = self._environment
        match verb:
            case "describe":
                return _signature(asked)
            case "open":
                await self.clear()
                self._environment = _make(asked)
                declared = declaration_of(self._environment)
                self.grace = _GRACE if declared.waits else 0.0
                self._tools = declared.tools
                return declared
            case "reset":
                if asked.max_steps is not None:
                    world.max_steps = asked.max_steps
                return await world.reset(asked.task)
            case "step":
                return _finite(world, "step", await world.step(asked))
            case "grade":
                return _finite(world, "grade", await world.grade())
            case "snapshot":
                return await world.snapshot()
            case "restore":
                return await world.restore(asked)
            case "begin":
                return {name: self._keep(line) for name, line in self._begin(asked).items()}
            case "more":
                return self._more(asked)
            case "close":
                return await self.clear()
        raise EnvironmentFault(f"the worker has no answer to {verb!r}.")

    def _changed_tools(self) -> tuple[ToolSpec, ...] | None:
        if self._environment is None or (tools := tuple(self._environment.tools())) == self._tools:
            return None
        self._tools = tools
        return tools

    def _begin(self, asked: wire.Beginning) -> dict[str, Iterable[Any]]:
        world = self._environment
        match asked.what:
            case "tasks":
                return {"": world.tasks(asked.split)}
            case "oracle":
                return {"": world.oracle(asked.task)}
            case "demonstrate":
                return {"": world.demonstrate(asked.task, self._rng)}
        return dict(world.cheats(asked.task))

    def _keep(self, line: Iterable[Any]) -> int:
        number = next(self._numbers)
        self._lines[number] = iter(line)
        return number

    def _more(self, asked: wire.More) -> wire.Items:
        if asked.rng is not None:
            self._rng.setstate(asked.rng)
        found = list(itertools.islice(self._lines[asked.line], asked.count))
        done = len(found) < asked.count
        if done:
            del self._lines[asked.line]
        state: Any = self._rng.getstate() if asked.rng is not None else None
        return wire.Items([msgspec.Raw(wire.encode(item)) for item in found], done, state)


def _make(asked: wire.Opening) -> Any:
    factory = locate(asked.address)
    options = _checked(factory, asked)
    try:
        made = factory(**options)
    except AgentRLError:
        raise
    except ValueError as error:
        # As where it is made here: a class says in its own words which option it cannot take.
        raise ConfigError(f"environment {asked.called or asked.address.name!r} {error}") from error
    if isinstance(made, Env):
        # In this very thread: the process keeps it from the others, and some libraries want the main thread.
        made.runs_in = "process"
        return Adapter(made)
    # One of the protocol may say again that it runs in a process: this is the one.
    return made if isinstance(made, Environment) else adapt(made)


def _checked(factory: Callable[..., Any], asked: wire.Opening) -> dict[str, Any]:
    """The options as the annotations say: a list becomes a tuple, text a path."""
    try:
        import agentrl.arguments  # noqa: F401 (needs the same pydantic, and says so at once)
        from agentrl.options import check_options
    except ImportError:
        return asked.options  # a virtual environment with another pydantic: plain JSON has to do

    checked = check_options(factory, asked.options, where=f"environment {asked.called or asked.address.name!r}")
    if checked.problems:
        raise ConfigError("\n".join(checked.problems))
    return dict(checked.values)


def _signature(address: Address) -> wire.Signature:
    factory = locate(address)
    parameters = inspect.signature(factory).parameters.values()
    named = [p for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return wire.Signature(
        (inspect.getdoc(factory) or "").partition("\n")[0],
        {p.name: _plain(p.default) for p in named if p.default is not p.empty},
        tuple(p.name for p in named if p.default is p.empty),
        any(p.kind is p.VAR_KEYWORD for p in parameters),
    )


def _plain(value: Any) -> Any:
    try:
        return msgspec.to_builtins(value)
    except TypeError:
        return repr(value)


def _finite(world: Any, verb: str, result: Any) -> Any:
    # JSON has no NaN: it would arrive as null.
    if not math.isfinite(result.reward):
        raise EnvironmentFault(
            f"{type(world).__name__}.{verb} returned reward {result.reward}; allowed is a finite number."
        )
    return result


def _failure(error: Exception) -> wire.Failed:
    if isinstance(error, AuthorFault):
        return wire.Failed("AuthorFault", str(error), error.kind, error.method, error.where)
    if isinstance(error, AgentRLError):
        return wire.Failed(type(error).__name__, str(error))
    file, number = frames_of(error.__traceback__)[-1]
    return wire.Failed("EnvironmentFault", f"{type(error).__name__}: {error} ({file}:{number})")


def _outlive_no_driver(descriptor: int) -> None:
    """End the process group soon after the driver hung up, also where the main thread is busy."""
    poll = select.poll()
    poll.register(descriptor, 0)
    poll.poll()
    time.sleep(_GRACE)
    os.killpg(0, signal.SIGKILL)
