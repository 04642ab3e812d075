"""Which category of tasks comes next, from how much was learnt of each: bandits and stages over sequential walks.

Within a category tasks come as the sequential sampler gives them. Results may come late and in any order: what is
drawn depends on the results that have come, and the state holds all of it.

A category is the value of `by` in a task's data; without `by` it is the first tag, else what stands before the first
`-`, `/` or `:` of the id.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from statistics import fmean, pstdev

from agentrl.errors import ConfigError
from agentrl.tasks.samplers import SequentialSampler
from agentrl.types import JSON, Group, Task

Tasks = Callable[[], Iterable[Task]]
_SMALLEST = 1e-6
"Added to the deviation of returns."


def category_of(task: Task, by: str = "") -> str:
    """Raises `ConfigError` where the task's data has no entry `by`."""
    if by:
        if by not in task.data:
            there = ", ".join(sorted(task.data)) or "nothing"
            raise ConfigError(f"the task {task.id!r} has no {by!r} in its data; there is: {there}.")
        return str(task.data[by])
    if task.tags:
        return task.tags[0]
    return task.id.replace("/", "-").replace(":", "-").partition("-")[0]


def learning_signal(group: Group) -> float:
    """Mean of |A| of the group's normalised returns: 0 where all are equal, near 1 where half of them win."""
    returns = [trajectory.reward for trajectory in group.trajectories]
    if len(returns) < 2 or max(returns) == min(returns):
        return 0.0
    middle, spread = fmean(returns), pstdev(returns)
    return fmean(abs(value - middle) for value in returns) / (spread + _SMALLEST)


class _Categories(ABC):
    """Draws a category, then that category's next task; the first `limit` tasks of the set are looked through."""

    def __init__(self, tasks: Tasks, seed: int, by: str, limit: int) -> None:
        if limit < 1:
            raise ConfigError(f"the curriculum looks through {limit} tasks; at least 1 is needed.")
        found: dict[str, list[Task]] = {}
        for task in islice(tasks(), limit):
            found.setdefault(category_of(task, by), []).append(task)
        if not found:
            raise ConfigError("the environment has no tasks in this split: `tasks(split)` gave none.")
        if len(found) == 1:
            raise ConfigError(
                f"all of the first {limit:,} tasks are of the category {next(iter(found))!r}, so there is nothing to "
                "choose. Give tasks tags, name an entry of their data with `by`, or take the sampler priority or pcl."
            )
        self._by = by
        self._names = list(found)
        self._walks = {name: SequentialSampler(_again(held), seed) for name, held in found.items()}
        self._seed = seed
        self._drawn = 0

    def next(self, count: int) -> Sequence[Task]:
        given: list[Task] = []
        for _ in range(count):
            # A generator of its own for each draw, so that the number of draws is all there is to remember.
            name = self._choose(random.Random(f"{self._seed} {self._drawn}"))
            self._drawn += 1
            given.extend(self._walks[name].next(1))
        return given

    def observe(self, group: Group) -> None:
        name = category_of(group.task, self._by)
        if name in self._walks and group.trajectories:
            self._learn(name, group)

    def state(self) -> JSON:
        return {
            "drawn": self._drawn,
            "walks": {name: walk.state() for name, walk in self._walks.items()},
            "known": self._known(),
        }

    def restore(self, state: JSON) -> None:
        """Raises `ConfigError` where the state is that of another sampler or of other categories."""
        try:
            drawn, walks, known = int(state["drawn"]), dict(state["walks"]), state["known"]
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{state!r} is no state of a curriculum: the run was begun with another sampler. Name that in "
                "rollout.sampler, or start in a new folder."
            ) from error
        if walks.keys() != self._walks.keys():
            raise ConfigError(
                f"the run was begun with the categories {', '.join(sorted(walks))}, not "
                f"{', '.join(sorted(self._walks))}: set the tasks back, or start in a new folder."
            )
        for name, walk in self._walks.items():
            walk.restore(walks[name])
        self._recall(known)
        self._drawn = drawn

    @abstractmethod
    def _choose(self, rng: random.Random) -> str: ...

    @abstractmethod
    def _learn(self, name: str, group: Group) -> None: ...

    @abstractmethod
    def _known(self) -> JSON: ...

    @abstractmethod
    def _recall(self, known: JSON) -> None:
        """Raises `ConfigError` where `known` is not what `_known` gives."""


class SoftmaxSampler(_Categories):
    """A softmax bandit: `Q <- Q + alpha (mean |A| - Q)`, category with probability ~ exp(Q / temperature) (SEC).

    Chen et al. 2025, arXiv:2505.14970. Q moves with every group, where the paper takes a category's mean over a batch.
    alpha and temperature are choices of ours.
    """

    def __init__(
        self,
        tasks: Tasks,
        seed: int = 0,
        *,
        alpha: float = 0.3,
        temperature: float = 0.3,
        by: str = "",
        limit: int = 10_000,
    ) -> None:
        if not 0 < alpha <= 1 or temperature <= 0:
            raise ConfigError(
                f"alpha is {alpha:g} and temperature {temperature:g}: alpha lies above 0 and up to 1, the temperature "
                "above 0."
            )
        super().__init__(tasks, seed, by, limit)
        self._alpha = alpha
        self._temperature = temperature
        self._value = dict.fromkeys(self._names, 0.0)

    def chances(self) -> dict[str, float]:
        """Probability of each category at the next draw."""
        top = max(self._value.values())
        weight = {name: math.exp((value - top) / self._temperature) for name, value in self._value.items()}
        total = sum(weight.values())
        return {name: value / total for name, value in weight.items()}

    def _choose(self, rng: random.Random) -> str:
        chances = self.chances()
        return rng.choices(list(chances), list(chances.values()))[0]

    def _learn(self, name: str, group: Group) -> None:
        self._value[name] += self._alpha * (learning_signal(group) - self._value[name])

    def _known(self) -> JSON:
        return dict(self._value)

    def _recall(self, known: JSON) -> None:
        self._value = {name: float(_entry(known, name)) for name in self._names}


class OptimisticSampler(_Categories):
    """An upper confidence bound: the category of the largest `mean |A| + c sqrt(2 ln(n + 1) / (n_k + 1))` (DUMP).

    Wang et al. 2025, arXiv:2504.09710. n counts draws, not results, so that a category whose results are late is not
    drawn over and over. The mean is over its last `window` groups, as the policy that gave older ones is gone; one
    without results counts as `prior`. c (`exploration`), window and prior are choices of ours.
    """

    def __init__(
        self,
        tasks: Tasks,
        seed: int = 0,
        *,
        exploration: float = 0.4,
        window: int = 50,
        prior: float = 1.0,
        by: str = "",
        limit: int = 10_000,
    ) -> None:
        if exploration < 0 or window < 1:
            raise ConfigError(f"exploration is {exploration:g} and window {window}: at least 0 and 1 are needed.")
        super().__init__(tasks, seed, by, limit)
        self._exploration = exploration
        self._window = window
        self._prior = prior
        self._count = dict.fromkeys(self._names, 0)
        self._signals: dict[str, list[float]] = {name: [] for name in self._names}

    def bound(self, name: str) -> float:
        signals = self._signals[name]
        drawn = sum(self._count.values())
        room = math.sqrt(2 * math.log(drawn + 1) / (self._count[name] + 1))
        return (fmean(signals) if signals else self._prior) + self._exploration * room

    def _choose(self, rng: random.Random) -> str:
        name = max(self._names, key=self.bound)
        self._count[name] += 1
        return name

    def _learn(self, name: str, group: Group) -> None:
        self._signals[name] = [*self._signals[name], learning_signal(group)][-self._window :]

    def _known(self) -> JSON:
        return {name: [self._count[name], *self._signals[name]] for name in self._names}

    def _recall(self, known: JSON) -> None:
        held = {name: list(_entry(known, name)) for name in self._names}
        self._count = {name: int(values[0]) for name, values in held.items()}
        self._signals = {name: [float(value) for value in values[1:]] for name, values in held.items()}


class StagedSampler(_Categories):
    """Stages of rising difficulty: the next opens when `share` of the last `window` episodes of this one were won.

    `stages` names categories, easy first; without it they come as numbers where all are (`by = "difficulty"`), else in
    the order in which the task set shows them. All stages that are open are drawn alike, so that what was learnt is not
    lost. A stage once open stays open.
    """

    def __init__(
        self,
        tasks: Tasks,
        seed: int = 0,
        *,
        stages: Sequence[str] = (),
        share: float = 0.7,
        window: int = 64,
        by: str = "",
        limit: int = 10_000,
    ) -> None:
        if not 0 < share <= 1 or window < 1:
            raise ConfigError(f"share is {share:g} and window {window}: above 0 up to 1, and at least 1 are needed.")
        super().__init__(tasks, seed, by, limit)
        if stages and sorted(stages) != sorted(self._names):
            raise ConfigError(
                f"the stages are {', '.join(stages)}, the categories of the tasks {', '.join(sorted(self._names))}: "
                "name each category once."
            )
        self._stages = list(stages) or _easy_first(self._names)
        self._share = share
        self._window = window
        self._open = 1
        self._recent: list[float] = []

    @property
    def open(self) -> Sequence[str]:
        """The stages that are drawn from."""
        return self._stages[: self._open]

    def _choose(self, rng: random.Random) -> str:
        return rng.choice(self.open)

    def _learn(self, name: str, group: Group) -> None:
        if name != self.open[-1] or self._open == len(self._stages):
            return
        won = [float(trajectory.success) for trajectory in group.trajectories]
        self._recent = [*self._recent, *won][-self._window :]
        if len(self._recent) == self._window and fmean(self._recent) >= self._share:
            self._open, self._recent = self._open + 1, []

    def _known(self) -> JSON:
        return {"open": self._open, "recent": list(self._recent)}

    def _recall(self, known: JSON) -> None:
        self._open = min(int(_entry(known, "open")), len(self._stages))
        self._recent = [float(value) for value in _entry(known, "recent")]


def _easy_first(names: list[str]) -> list[str]:
    try:
        return sorted(names, key=float)
    except ValueError:
        return names


def _again(tasks: Sequence[Task]) -> Tasks:
    return lambda: tasks


def _entry(known: JSON, name: str) -> JSON:
    try:
        return known[name]
    except (KeyError, TypeError) as error:
        raise ConfigError(f"the state of the curriculum has no entry {name!r}; it is that of another one.") from error
