"""Playing an episode without a model, and telling two episodes apart.

An episode is kept as plain data, so that a replay can be compared number for number.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from agentrl.agents import Agent
from agentrl.blame import AuthorFault, frames_of, place, source_of
from agentrl.divergence import Divergence, came_otherwise, shown_otherwise
from agentrl.errors import AgentRLError
from agentrl.protocols import Environment
from agentrl.types import Action, Observation, StepResult, Task

DEFAULT_DEADLINE = 30.0
DEFAULT_STEPS = 64
"Where an environment that is no `Env` names no limit of its own."

Around = Callable[[], AbstractContextManager[Any]]


@dataclass(slots=True)
class Episode:
    """What happened: `results[i]` answers `actions[i]`."""

    task: Task
    first: Observation
    actions: list[Action] = field(default_factory=list)
    results: list[StepResult] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return bool(self.results) and (self.results[-1].terminated or self.results[-1].truncated)

    @property
    def reward(self) -> float:
        return sum(result.reward for result in self.results)

    @property
    def success(self) -> bool:
        """As `Trajectory.success` has it."""
        if not self.results:
            return False
        scores = self.results[-1].scores
        return scores["success"] > 0 if "success" in scores else self.reward > 0

    @property
    def observations(self) -> list[Observation]:
        return [self.first, *(result.observation for result in self.results)]


def author_of(environment: Environment) -> type:
    """The class that a person wrote."""
    return type(getattr(environment, "author", environment))


def limits_of(environment: Environment) -> tuple[int, float, float]:
    """`max_steps`, `step_deadline` and `reset_deadline`, the last two in seconds."""
    return (
        getattr(environment, "max_steps", None) or DEFAULT_STEPS,
        getattr(environment, "step_deadline", DEFAULT_DEADLINE),
        getattr(environment, "reset_deadline", DEFAULT_DEADLINE),
    )


async def begin(environment: Environment, task: Task, around: Around = contextlib.nullcontext) -> Episode:
    """Reset. `around` gives a context that is entered for every wait on the environment."""
    with blaming(environment, "reset"), around():
        async with asyncio.timeout(_late(limits_of(environment)[2])):
            return Episode(task, await environment.reset(task))


async def advance(
    environment: Environment, episode: Episode, action: Action, around: Around = contextlib.nullcontext
) -> StepResult:
    """Play one action and record it."""
    started = time.perf_counter()
    with blaming(environment, "step"), around():
        async with asyncio.timeout(_late(limits_of(environment)[1])):
            result = await environment.step(action)
    if not math.isfinite(result.reward):
        owner = author_of(environment)
        where = source_of(owner, "step")
        what = f"{owner.__name__}.step returned reward {result.reward} at {where}; allowed is a finite number."
        raise AuthorFault(what, "not_finite", "step", where)
    episode.actions.append(action)
    episode.results.append(result)
    episode.seconds.append(time.perf_counter() - started)
    return result


async def play(
    environment: Environment,
    task: Task,
    choose: Callable[[Environment, Task], Agent],
    rng: random.Random,
    around: Around = contextlib.nullcontext,
    seconds: float = math.inf,
) -> Episode:
    """A whole episode, or its first `seconds`; `choose` is called after the reset: an oracle may read the world."""
    episode = await begin(environment, task, around)
    agent = choose(environment, task)
    limit, end = limits_of(environment)[0], time.monotonic() + seconds
    while not episode.ended and len(episode.results) < limit and (time.monotonic() < end or not episode.results):
        observation = episode.results[-1].observation if episode.results else episode.first
        await advance(environment, episode, agent.act(observation, environment.tools(), rng), around)
    return episode


async def replay(environment: Environment, recorded: Episode) -> Episode:
    episode = await begin(environment, recorded.task)
    for action in recorded.actions:
        await advance(environment, episode, action)
        if episode.ended:
            break
    return episode


def difference(one: Episode, other: Episode) -> Divergence | None:
    """The first thing that differs, with the step that brought it (-1 is the reset); None where they are equal."""
    found = shown_otherwise(-1, one.first, other.first)
    for index, (left, right) in enumerate(zip(one.results, other.results, strict=False)):
        found = found or shown_otherwise(index, left.observation, right.observation)
        found = found or came_otherwise(index, left, right)
        if found is None and left.scores.keys() != right.scores.keys():
            found = Divergence(index, "its scores", repr(sorted(left.scores)), repr(sorted(right.scores)))
        if found is not None:
            return found
    lengths = len(one.results), len(other.results)
    if found is None and lengths[0] != lengths[1]:
        found = Divergence(min(lengths) - 1, "the number of steps", *map(str, lengths))
    return found


@contextlib.contextmanager
def blaming(environment: Environment, method: str) -> Iterator[None]:
    """Whatever the author's code raises becomes an `AuthorFault` with its place."""
    owner = author_of(environment)
    try:
        yield
    except AgentRLError as error:
        if isinstance(error, AuthorFault):
            raise
        raise _fault(owner, method, error, str(error)) from error
    except TimeoutError as error:
        where = place(owner, method, frames_of((error.__cause__ or error).__traceback__))
        what = f"{owner.__name__}.{method} did not come back within its deadline; it waits at {where}."
        raise AuthorFault(what, "deadline", method, where) from error
    except Exception as error:
        raise _fault(
            owner, method, error, f"{owner.__name__}.{method} raised {type(error).__name__}: {error}"
        ) from error


def action_text(actions: Sequence[Action]) -> str:
    """The actions in one line, for a report."""
    parts = []
    for action in actions:
        calls = [f"{c.name}({', '.join(f'{k}={v!r}' for k, v in c.arguments.items())})" for c in action.tool_calls]
        parts += calls or [repr(action.text)]
    shown = ", ".join(parts[:8])
    return shown if len(parts) <= 8 else f"{shown}, ... ({len(parts)} actions)"


def _fault(owner: type, method: str, error: BaseException, what: str) -> AuthorFault:
    where = place(owner, method, frames_of(error.__traceback__))
    return AuthorFault(f"{what} at {where}", "raised", method, where)


def _late(seconds: float) -> float:
    """A second more than the adapter's own deadline, which names the culprit better."""
    return seconds + 1.0
