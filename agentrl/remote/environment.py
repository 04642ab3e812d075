"""An environment in another process, as the rollout engine plays it.

A worker that hangs, crashes or is killed is a fault with its place, never an observation; the next has a new one.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from agentrl import errors
from agentrl.blame import AuthorFault, innermost
from agentrl.errors import AgentRLError, EnvironmentFault, InfrastructureFault
from agentrl.remote import wire
from agentrl.remote.address import Address
from agentrl.remote.child import Child, Death, Died, unreadable
from agentrl.remote.declaration import Declaration
from agentrl.remote.pool import WORKERS
from agentrl.types import JSON, Action, Observation, StepResult, Task, ToolSpec

T = TypeVar("T")

START_DEADLINE = 120.0
"Seconds that starting, importing and making the environment may take."
_DEADLINE = 30.0
"Seconds for a call of an environment that names no deadline."
_PAGE = 64
"Tasks that are read at once."


class Listing(Protocol):
    """The same environment in this process, where it can be imported: what needs no episode is asked of it."""

    def tasks(self, split: str) -> Iterable[Task]: ...


def open_remote(address: Address, options: Mapping[str, JSON], called: str = "") -> RemoteEnvironment:
    """An environment whose class cannot be imported here. Blocking where it is the first with these options.

    `called` is what it is registered as. Raises `ConfigError` for options that do not fit.
    """
    return RemoteEnvironment(address, options, _declared(address, json.dumps(options, sort_keys=True), called))


@functools.lru_cache(maxsize=256)
def describe(address: Address) -> wire.Signature:
    """The options of the class at `address`. Blocking. Raises what its import raises, as an error of ours."""
    signature: wire.Signature = _once(address, "describe", address)
    return signature


class RemoteEnvironment:
    """Implements `protocols.Environment`; also what `Declaration.abilities` names. Started by its first call."""

    author: Any
    "The instance of this process; where the class cannot be imported, something of that name. Of an `Env` only."
    grade: Callable[[], Awaitable[StepResult]]
    snapshot: Callable[[], Awaitable[JSON]]
    restore: Callable[[JSON], Awaitable[Observation]]
    oracle: Callable[[Task], Iterable[Action]]
    demonstrate: Callable[[Task, random.Random], Iterable[Action]]
    cheats: Callable[[Task], Mapping[str, Iterable[Action]]]

    def __init__(
        self, address: Address, options: Mapping[str, JSON], declared: Declaration, near: Listing | None = None
    ) -> None:
        self.declared = declared
        self.name = declared.name
        self.max_steps = declared.max_steps
        self.step_deadline = declared.step_deadline or _DEADLINE
        self.reset_deadline = declared.reset_deadline or _DEADLINE
        self._address = address
        self._options = dict(options)
        self._near = near
        self._tools = declared.tools
        self._child: Child | None = None
        self._closed = False
        if declared.adapted:
            self.author = getattr(near, "author", None) or type(declared.name, (), {})()
        for ability in declared.abilities:
            setattr(self, ability, getattr(self, f"_{ability}"))

    def tasks(self, split: str) -> Iterator[Task]:
        """The author's, lazily."""
        if self._near is not None:
            yield from self._near.tasks(split)
            return
        reader = RemoteEnvironment(self._address, self._options, self.declared)
        try:
            for line in reader._begin(wire.Beginning("tasks", split=split)).values():
                yield from reader._read("tasks", line, Task, _PAGE)
            reader._now("close", None, "close", self.reset_deadline)
        finally:
            reader._let_go()

    def tools(self) -> Sequence[ToolSpec]:
        return self._tools

    async def reset(self, task: Task) -> Observation:
        shown: Observation = await self._ask("reset", wire.Reset(task, self.max_steps), "reset", self.reset_deadline)
        return shown

    async def step(self, action: Action) -> StepResult:
        method = action.tool_calls[0].name if action.tool_calls else "answered"
        result: StepResult = await self._ask("step", action, method, self.step_deadline)
        return result

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if self._child is not None and not self._child.gone:
                await self._told(self._child, "close", None, "close", self.reset_deadline)
        finally:
            self._let_go()

    async def _grade(self) -> StepResult:
        result: StepResult = await self._ask("grade", None, "reward", self.step_deadline)
        return result

    async def _snapshot(self) -> JSON:
        return await self._ask("snapshot", None, "snapshot", self.reset_deadline)

    async def _restore(self, snapshot: JSON) -> Observation:
        shown: Observation = await self._ask("restore", snapshot, "restore", self.reset_deadline)
        return shown

    def _oracle(self, task: Task) -> Iterator[Action]:
        return self._read("oracle", self._begin(wire.Beginning("oracle", task))[""], Action, 1)

    def _demonstrate(self, task: Task, rng: random.Random) -> Iterator[Action]:
        return self._read("demonstrate", self._begin(wire.Beginning("demonstrate", task))[""], Action, 1, rng)

    def _cheats(self, task: Task) -> dict[str, Iterable[Action]]:
        lines = self._begin(wire.Beginning("cheats", task))
        return {name: self._read("cheats", line, Action, 1) for name, line in lines.items()}

    def _begin(self, beginning: wire.Beginning) -> dict[str, int]:
        lines: dict[str, int] = self._now("begin", beginning, beginning.what, self.reset_deadline)
        return lines

    def _read(self, method: str, line: int, kind: type[T], count: int, rng: random.Random | None = None) -> Iterator[T]:
        """The items of an author's iterable; actions one by one, since they may follow the world."""
        done = False
        while not done:
            state: Any = rng.getstate() if rng is not None else None
            found: wire.Items = self._now("more", wire.More(line, count, state), method, self.reset_deadline)
            if rng is not None and found.rng is not None:
                rng.setstate(found.rng)
            for item in found.items:
                yield msgspec.json.decode(item, type=kind)
            done = found.done

    async def _ask(self, verb: str, body: Any, method: str, seconds: float) -> Any:
        """What the worker answers, in an environment that it makes first where there is none."""
        child = self._ready(method)
        if child is None:
            child = self._child = WORKERS.take(self._address)
            await self._told(child, "open", wire.Opening(self._address, self._options), "__init__", START_DEADLINE)
        return await self._told(child, verb, body, method, seconds)

    def _now(self, verb: str, body: Any, method: str, seconds: float) -> Any:
        """The same, blocking."""
        child = self._ready(method)
        try:
            if child is None:
                child = self._child = WORKERS.take(self._address)
                opening = wire.Opening(self._address, self._options)
                self._answer("open", child.ask_now("open", opening, START_DEADLINE))
            return self._answer(verb, child.ask_now(verb, body, seconds))
        except Died as died:
            raise self._fault(died.death, verb, method, seconds) from None
        except msgspec.MsgspecError as error:
            if child is not None:
                child.kill()
            raise self._fault(unreadable(error), verb, method, seconds) from None

    async def _told(self, child: Child, verb: str, body: Any, method: str, seconds: float) -> Any:
        try:
            return self._answer(verb, await child.ask(verb, body, seconds))
        except Died as died:
            raise self._fault(died.death, verb, method, seconds) from None
        except msgspec.MsgspecError as error:
            # A whole message, but no answer to what was asked.
            child.kill()
            raise self._fault(unreadable(error), verb, method, seconds) from None

    def _ready(self, method: str) -> Child | None:
        if self._closed:
            raise EnvironmentFault(f"{self.name}.{method} was called after `close`: make a new instance.")
        if self._child is not None and self._child.gone:
            raise EnvironmentFault(f"the process of {self.name} is gone: make a new instance.")
        return self._child

    def _answer(self, verb: str, reply: wire.Reply) -> Any:
        if reply.tools is not None:
            self._tools = reply.tools
        return answer(verb, reply)

    def _let_go(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            WORKERS.give_back(child)

    def _fault(self, death: Death, verb: str, method: str, seconds: float) -> AgentRLError:
        """Whose fault the end of a worker is, and where."""
        wrote = f" It wrote last:\n{death.printed}" if death.printed else ""
        where = innermost(self.declared.files, death.frames) or self.declared.where(method)
        if verb == "open":
            return InfrastructureFault(f"the worker of {self.name} {death.what} before it was ready.{wrote}")
        if death.late:
            limit = "step_deadline" if verb in ("step", "grade") else "reset_deadline"
            what = f"{self.name}.{method} did not come back within {seconds:g} s ({limit}); it waits at {where}."
            advice = f"Make it faster, or raise `{limit}` of {self.name}. Its process was ended."
            return AuthorFault(f"{what} {advice}{wrote}", "deadline", method, where)
        if death.killed:
            return InfrastructureFault(
                f"the process of {self.name} {death.what} in `{method}`, which the system does where memory runs out. "
                f"Fewer environments at once ([rollout] environments) need less.{wrote}"
            )
        what = f"the process of {self.name} {death.what} in `{method}` at {where}."
        return AuthorFault(f"{what}{wrote}", "crashed", method, where)


@functools.lru_cache(maxsize=256)
def _declared(address: Address, options: str, called: str) -> Declaration:
    declared: Declaration = _once(address, "open", wire.Opening(address, json.loads(options), called))
    return declared


def _once(address: Address, verb: str, body: Any) -> Any:
    """Ask some worker of `address`, without an episode."""
    child = WORKERS.take(address)
    try:
        return answer(verb, child.ask_now(verb, body, START_DEADLINE))
    except Died as died:
        told = died.death
        raise InfrastructureFault(
            f"the worker of {address.name} {told.what} before it was ready.\n{told.printed}"
        ) from None
    finally:
        WORKERS.give_back(child)


def answer(verb: str, reply: wire.Reply) -> Any:
    """What a reply holds. Raises the error that it reports, of its own class where that is one of ours."""
    failed = reply.failed
    if failed is None:
        _, kind = wire.VERBS[verb]
        return None if kind is None else msgspec.json.decode(reply.body, type=kind)
    if failed.error == "AuthorFault":
        raise AuthorFault(failed.text, failed.kind, failed.method, failed.where)  # type: ignore[arg-type]
    known = getattr(errors, failed.error, None)
    if isinstance(known, type) and issubclass(known, AgentRLError):
        raise known(failed.text)
    raise EnvironmentFault(failed.text)
