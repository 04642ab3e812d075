"""What an author writes: one class with tasks, a reset, tools and a reward.

Only `ToolError`, an unknown tool, invalid arguments and unreadable output are the model's mistakes; every other
exception is an `EnvironmentFault` that names the author's file and line, and is never scored.
"""

from __future__ import annotations

import inspect
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, Literal, Self, TypeAlias, TypeVar, get_args

from agentrl import protocols
from agentrl.adapter import Adapter
from agentrl.blame import shorten, source_of
from agentrl.errors import PluginError
from agentrl.remote.address import address_of
from agentrl.remote.declaration import declaration_of
from agentrl.remote.environment import RemoteEnvironment
from agentrl.tools import plain
from agentrl.types import JSON, Action, Observation, Task, ToolCall

T = TypeVar("T")
Maybe: TypeAlias = T | Awaitable[T]
"Every method may be written `def` or `async def`, except `tasks`, `oracle`, `demonstrate` and `cheats`."
RunsIn: TypeAlias = Literal["loop", "thread", "process"]


class _Remade:
    """Remembers its arguments: a worker process makes the same instance again from them."""

    _made_with: Mapping[str, Any]

    # Not in Env itself: beside its `__init__`, this would be the signature of every class without one of its own.
    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        made = super().__new__(cls)
        made._made_with = inspect.signature(cls).bind(*arguments, **options).arguments if arguments else options
        return made


class Env(_Remade, ABC):
    """Base class of environments. An instance serves one episode at a time; its docstring describes it to people.

    Options are keyword-only, typed parameters of `__init__`. Where its methods run, the class says with `runs_in`.
    """

    max_steps: int = 16
    "Actions per episode; at the limit the episode is truncated and graded."
    step_deadline: float = 30.0
    "Seconds that one action may take, grading included."
    reset_deadline: float = 30.0
    "Seconds that `reset` (and `close`, `snapshot`, `restore`) may take."
    system: str = ""
    "System prompt, if any."
    text_limit: int = 100_000
    "Characters of one message; a longer one is cut, with a note."
    runs_in: RunsIn = "thread"
    """Plain methods run in a thread of the instance; with "loop" on the event loop itself, for pure-Python worlds whose
    methods take microseconds; with "process" the whole world runs in a worker process, which may hang or crash."""

    def __init__(self) -> None:
        """No options. Without this, `__new__` would take any."""

    @abstractmethod
    def tasks(self, split: str) -> Iterable[Task]:
        """Tasks of "train" (may be endless) or "test" (finite), always the same ones. They share no task."""

    @abstractmethod
    def reset(self, task: Task) -> Maybe[str | Observation]:
        """Begin an episode. A str is one user message."""

    def done(self) -> Maybe[bool]:
        """Is the task over? Asked after every action."""
        return False

    def answered(self, text: str) -> Maybe[str | None]:
        """The model spoke without calling a tool. None ends the episode; a str is the user's reply."""
        return None

    def step_reward(self) -> Maybe[float]:
        """Asked after every action."""
        return 0.0

    def reward(self) -> Maybe[float]:
        """Asked once, when the episode ends, also at `max_steps`; added to the last step's reward."""
        return 0.0

    def scores(self) -> Maybe[Mapping[str, float]]:
        """Asked once, when the episode ends. `success` defaults to 1.0 where `reward()` is at least 1."""
        return {}

    def state_key(self) -> Maybe[str | None]:
        """Equal keys within a group of one task are equal states."""
        return None

    def screenshot(self) -> Maybe[bytes | None]:
        """What there is to see, as PNG, JPEG, GIF or WebP, or None. Asked after `reset` and every action.

        `agentrl view` marks a call with the arguments `x` and `y`, in its pixels, as a click.
        """
        return None

    def snapshot(self) -> Maybe[JSON]:
        """The state in mid-episode, as JSON. Offer it together with `restore`, or not at all."""
        raise NotImplementedError(f"{type(self).__name__} offers no snapshot.")

    def restore(self, snapshot: JSON) -> Maybe[str | Observation | None]:
        """Return to a snapshot of the same task. Called after `reset(task)`, possibly in another instance."""
        raise NotImplementedError(f"{type(self).__name__} offers no snapshot.")

    def oracle(self, task: Task) -> Iterable[Action]:
        """The actions that win `task`: a generator that is called after `reset` and may read `self`."""
        raise NotImplementedError(f"{type(self).__name__} offers no oracle.")

    def demonstrate(self, task: Task, rng: random.Random) -> Iterable[Action]:
        """An imperfect line of play, for warm starts; the oracle's by default."""
        return self.oracle(task)

    def cheats(self, task: Task) -> Mapping[str, Iterable[Action]]:
        """Lines of play by name that must not win."""
        return {}

    def close(self) -> Maybe[None]:
        """Give back everything. Called once, also without a reset."""
        return None


def adapt(environment: object, runs_in: RunsIn | None = None) -> protocols.Environment:
    """What the rollout engine plays: an `Env` wrapped, an object of the protocol as it is. Raises `PluginError`.

    Both may say `runs_in = "process"`; an object of the protocol then keeps its options in `made_with`. The argument
    `runs_in` takes the place of what an `Env` says.
    """
    if isinstance(environment, Env):
        if runs_in is not None:
            environment.runs_in = runs_in
        return _adapted(environment)
    if isinstance(environment, protocols.Environment):
        if runs_in is not None:
            raise PluginError(
                f"{type(environment).__name__} is no `agentrl.Env` and says itself where it runs; runs_in = "
                f"{runs_in!r} cannot move it. Leave runs_in out of [environment]."
            )
        if getattr(environment, "runs_in", "") != "process":
            return environment
        made_with = getattr(environment, "made_with", None)
        if not isinstance(made_with, Mapping):
            raise PluginError(
                f"{type(environment).__name__} runs in a process and has made_with {made_with!r}; needed are the "
                "options of its `__init__` by name, with which the process makes it again."
            )
        return _elsewhere(environment, environment, made_with)
    hint = " It is a class: call it." if isinstance(environment, type) else ""
    raise PluginError(
        f"{environment!r} is no environment.{hint} An environment is an instance of `agentrl.Env` or has tasks, "
        "tools, reset, step and close."
    )


def _adapted(author: Env) -> protocols.Environment:
    owner, near = type(author), Adapter(author)
    where = source_of(owner, "__init__")
    if author.runs_in not in get_args(RunsIn):
        raise PluginError(f"{owner.__name__} at {where} has runs_in {author.runs_in!r}; allowed: {get_args(RunsIn)}.")
    if author.runs_in != "process":
        return near
    return _elsewhere(near, author, author._made_with)


def _elsewhere(near: protocols.Environment, author: object, options: Mapping[str, Any]) -> RemoteEnvironment:
    """The environment in a worker process; `near` is the one that was made here, of the author's class."""
    owner = type(author)
    address = address_of(owner)
    if address is None:
        raise PluginError(
            f"{owner.__name__} at {source_of(owner, '__init__')} cannot run in a process, since no other process can "
            "import it: write it at the top level of a module or a file."
        )
    try:
        told = plain(dict(options))
    except ValueError as error:
        raise PluginError(
            f"{owner.__name__} was made with {shorten(dict(options))}, which cannot travel to its process: {error}. "
            "Options of an environment that runs in a process are JSON, paths or dataclasses of these."
        ) from error
    return RemoteEnvironment(address, told, declaration_of(near), near)


def call(name: str, /, **arguments: object) -> Action:
    """The action that calls one tool: `call("close_ticket", ticket=3)`."""
    return Action(tool_calls=(ToolCall(name, plain(arguments)),))


def say(text: str) -> Action:
    """The action that speaks without calling a tool."""
    return Action(text=text)
