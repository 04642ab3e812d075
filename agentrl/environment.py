"""What an author writes: one class with tasks, a reset, tools and a reward.

Only `ToolError`, an unknown tool, invalid arguments and unreadable output are the model's mistakes; every other
exception is an `EnvironmentFault` that names the author's file and line, and is never scored.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, Mapping
from typing import ClassVar, TypeAlias, TypeVar

from pydantic_core import to_jsonable_python

from agentrl import protocols
from agentrl.adapter import Adapter
from agentrl.errors import PluginError
from agentrl.types import JSON, Action, Observation, Task, ToolCall

T = TypeVar("T")
Maybe: TypeAlias = T | Awaitable[T]
"Every method may be written `def` or `async def`, except `tasks`, `oracle`, `demonstrate` and `cheats`."


class Env(ABC):
    """Base class of environments. An instance serves one episode at a time; its docstring describes it to people.

    Options are keyword-only, typed parameters of `__init__`. Plain methods run in a thread of their own unless the
    class says `blocking = False`.
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
    blocking: ClassVar[bool] = True
    "False for pure-Python worlds whose methods take microseconds: they run on the event loop itself."

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


def adapt(environment: object) -> protocols.Environment:
    """What the rollout engine plays: an `Env` wrapped, an object of the protocol unchanged. Raises `PluginError`."""
    if isinstance(environment, Env):
        return Adapter(environment)
    if isinstance(environment, protocols.Environment):
        return environment
    hint = " It is a class: call it." if isinstance(environment, type) else ""
    raise PluginError(
        f"{environment!r} is no environment.{hint} An environment is an instance of `agentrl.Env` or has tasks, "
        "tools, reset, step and close."
    )


def call(name: str, /, **arguments: object) -> Action:
    """The action that calls one tool: `call("close_ticket", ticket=3)`."""
    return Action(tool_calls=(ToolCall(name, to_jsonable_python(arguments)),))


def say(text: str) -> Action:
    """The action that speaks without calling a tool."""
    return Action(text=text)
