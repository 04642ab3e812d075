"""A suite: held-out tasks of one environment that are played under fixed limits and scored one way.

Its hash says what it measures: two results are comparable where their hashes are equal, whatever the suite is called.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice

import msgspec

from agentrl.environment import adapt
from agentrl.errors import ConfigError, did_you_mean
from agentrl.evaluation.attempts import succeeded
from agentrl.protocols import Environment
from agentrl.types import JSON, Task, Trajectory

FIRST_NAMES = 5


@dataclass(frozen=True, slots=True)
class SuiteLimits:
    """What bounds every episode, whoever plays it."""

    max_steps: int | None = None
    "Actions; the environment's own limit where None."
    max_tokens: int = 256
    "Sampled tokens per answer, where the evaluation names no other number."
    max_context: int | None = None
    "Tokens of prompt and answer together; the policy's own where None."
    episode_deadline: float = 600.0
    "Seconds, waiting for the policy included."


@dataclass(frozen=True)  # without slots: it remembers its tasks and its hash
class Suite:
    """Held-out tasks. A plugin registers a factory of it under the hook `agentrl_suites`."""

    name: str
    version: str
    "Raise it when what is measured changes in a way that the hash cannot see: the environment's rules, a grader."
    environment: Callable[..., object]
    "Makes a fresh environment from `options`."
    options: Mapping[str, JSON] = field(default_factory=dict)
    split: str = "test"
    count: int | None = None
    "The first so many tasks of the split; all where None."
    score: Callable[[Trajectory], float] = succeeded
    "From 0 to 1; success by default."
    limits: SuiteLimits = SuiteLimits()
    known_bad: Mapping[str, str] = field(default_factory=dict)
    "Tasks that cannot be judged, by id, with the reason: they are named in the result and not played."

    def world(self) -> Environment:
        """A fresh environment; cheap until it is reset. Raises `ConfigError` for an option that it cannot take."""
        from agentrl.options import build

        return adapt(build(self.environment, self.options, where=f"suite {self.name!r}:"))

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """Those that are played, in the suite's order. Raises `ConfigError` where there are none."""
        found = [replace(task, split=self.split) for task in islice(self.world().tasks(self.split), self.count)]
        for name in self.known_bad.keys() - {task.id for task in found}:
            raise ConfigError(
                f"the suite {self.name!r} calls {name!r} a bad task and has none of that name."
                f"{did_you_mean(name, [task.id for task in found])} Name a task of its split, or drop it."
            )
        left = tuple(task for task in found if task.id not in self.known_bad)
        if not left:
            raise ConfigError(
                f"the suite {self.name!r} has no tasks in the split {self.split!r} ({len(found)} found, "
                f"{len(self.known_bad)} named as bad). Give it another split, or the environment tasks of this one."
            )
        return left

    @cached_property
    def hash(self) -> str:
        """Of version, environment, options, tasks, scoring and limits."""
        made = self.environment
        rule = f"{self.score.__module__}.{self.score.__qualname__}"
        world = f"{getattr(made, '__module__', '')}.{getattr(made, '__qualname__', type(made).__name__)}"
        parts = (self.version, world, dict(self.options), rule, self.limits, dict(self.known_bad), self.tasks)
        return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()[:16]

    def chosen(self, names: Iterable[str] = (), limit: int | None = None) -> tuple[Task, ...]:
        """The tasks of those names in the suite's order, or all; of them the first `limit`.

        Raises `ConfigError` for a name that is not there or is known to be bad.
        """
        wanted = list(names)
        known = {task.id: task for task in self.tasks}
        for name in wanted:
            if name in self.known_bad:
                raise ConfigError(f"the task {name!r} of {self.name} is not played: {self.known_bad[name]}.")
            if name not in known:
                raise ConfigError(
                    f"the suite {self.name!r} has no task {name!r}.{did_you_mean(name, known)} "
                    f"The first are: {', '.join(islice(known, FIRST_NAMES))}."
                )
        chosen = [task for task in self.tasks if not wanted or task.id in wanted]
        return tuple(chosen[:limit])
