"""What a run is built from: the recipe, the plugins, the folder, the screen; and how parts are made of them.

What a factory needs of the run (a model, a folder, a lock) it takes by the name of its parameter; nothing here asks
which engine or method it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

from agentrl.environment import adapt
from agentrl.errors import ConfigError
from agentrl.method import Method
from agentrl.plugins import Host
from agentrl.protocols import ContextPolicy, Environment, RolloutStrategy
from agentrl.rollout.forking import demands_of
from agentrl.runs.folder import RunFolder
from agentrl.sections import Config, Part
from agentrl.training.report import ProgressReport
from agentrl.types import Task

NOTHING: Mapping[str, Any] = {}


class Screen(Protocol):
    """Where a run says how it goes."""

    def show(self, report: ProgressReport) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Blueprint:
    config: Config
    host: Host
    folder: RunFolder
    screen: Screen

    def part(self, kind: str, part: Part, place: str, given: Mapping[str, Any] = NOTHING) -> Any:
        """Build what the recipe names at `place`."""
        return self.host.create(kind, part.name, part.options, given=given, where=place)

    def environment(self) -> Environment:
        """A fresh environment; cheap until it is reset."""
        told = self.config.environment
        return adapt(self.part("environments", told, "[environment]"), told.runs_in)

    def context(self) -> ContextPolicy:
        policy: ContextPolicy = self.part("context_policies", self.config.rollout.context, "[rollout] context")
        return policy

    def strategy(self) -> RolloutStrategy:
        """Raises `ConfigError` where the recipe's groups are too small for it."""
        chosen, size = self.config.rollout.strategy, self.config.rollout.group_size
        strategy: RolloutStrategy = self.part("strategies", chosen, "[rollout] strategy")
        least = demands_of(strategy).group
        if size < least:
            raise ConfigError(
                f"rollout.group_size is {size}; the strategy {chosen.name!r} with these options needs groups of at "
                f"least {least}. Raise it, or let the strategy begin with fewer."
            )
        return strategy

    def method(self) -> Method:
        """Raises `ConfigError` where groups or strategy cannot give what the recipe's method needs."""
        method: Method = self.part("methods", self.config.method, "[method]", {"host": self.host})
        asked = demands_of(self.strategy())
        method.check(self.config.rollout.group_size, forks=asked.forks, experts=asked.experts)
        return method

    def held_out(self) -> list[Task]:
        """The recipe's evaluation tasks: the first of the split, the same in every run."""
        split, count = self.config.evaluation.split, self.config.evaluation.tasks
        tasks = [replace(task, split=split) for task in islice(self.environment().tasks(split), count)]
        if count and not tasks:
            raise ConfigError(
                f"the environment has no tasks in its split {split!r}; set evaluation.split or tasks = 0."
            )
        if split not in ("train", "test"):
            # Many a `tasks` takes what it does not know for "train": a slip would be measured on what is trained.
            trained = {task.id for task in islice(self.environment().tasks("train"), count)}
            if shared := trained.intersection(task.id for task in tasks):
                raise ConfigError(
                    f"evaluation.split is {split!r}, and its tasks are trained on ({len(shared)} of the first {count}, "
                    f"such as {min(shared)!r}). Name a split that shares no task with 'train'; 'test' is one."
                )
        return tasks

    def device(self) -> str:
        """Where the learner computes; also sets torch's threads as the recipe says."""
        import torch

        if self.config.training.threads:
            torch.set_num_threads(self.config.training.threads)
        if self.config.model.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return self.config.model.device
