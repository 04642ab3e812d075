"""Which single task comes next, from how often each is won: a win rate per task, its category's where it is new.

Tasks are drawn one by one from the first `limit` of the set, and one that was drawn pauses for some draws. What is
drawn depends on the results that have come, in whatever order, and the state holds all of it.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from agentrl.errors import ConfigError
from agentrl.estimates import WinRates
from agentrl.types import JSON, Group, Task

Tasks = Callable[[], Iterable[Task]]
_PAUSE = 64
"Draws for which a task pauses, at most: half of a small set."


class _ByRate(ABC):
    """Draws tasks by their rate. What was seen of a task counts, else of its first tag, else 0.5."""

    def __init__(self, tasks: Tasks, seed: int, decay: float, limit: int) -> None:
        if limit < 1:
            raise ConfigError(f"the sampler looks through {limit} tasks; at least 1 is needed.")
        self._tasks = list(islice(tasks(), limit))
        if not self._tasks:
            raise ConfigError("the environment has no tasks in this split: `tasks(split)` gave none.")
        self._seed = seed
        self._drawn = 0
        self._pausing: list[str] = []
        self._rates = WinRates(decay=decay, most=max(limit, 1))
        self._kinds = WinRates(decay=decay)

    def rate(self, task: Task) -> float:
        """Chance of success, 0 to 1."""
        if task.id in self._rates.counts or not task.tags:
            return self._rates.rate(task.id)
        return self._kinds.rate(task.tags[0])

    def next(self, count: int) -> Sequence[Task]:
        return [self._draw() for _ in range(count)]

    def _draw(self) -> Task:
        pausing = set(self._pausing)
        # A generator of its own for each draw, so that the number of draws is all there is to remember.
        dice = random.Random(f"{self._seed} {self._drawn}")
        task = self._choose([task for task in self._tasks if task.id not in pausing], dice)
        pause = min(len(self._tasks) // 2, _PAUSE)
        self._pausing = [*self._pausing, task.id][-pause:] if pause else []
        self._drawn += 1
        return task

    def observe(self, group: Group) -> None:
        for trajectory in group.trajectories:
            self._rates.learn(group.task.id, float(trajectory.success))
            if group.task.tags:
                self._kinds.learn(group.task.tags[0], float(trajectory.success))

    def state(self) -> JSON:
        rates, kinds = self._rates.state(), self._kinds.state()
        return {"drawn": self._drawn, "pausing": list(self._pausing), "rates": rates, "kinds": kinds}

    def restore(self, state: JSON) -> None:
        """Raises `ConfigError` where the state is that of another sampler."""
        try:
            drawn, rates, kinds = int(state["drawn"]), state["rates"], state["kinds"]
            pausing = [str(task) for task in state["pausing"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{state!r} is no state of a sampler by win rate: the run was begun with another one. Name that in "
                "rollout.sampler, or start in a new folder."
            ) from error
        self._rates.restore(rates)
        self._kinds.restore(kinds)
        self._drawn, self._pausing = drawn, pausing

    @abstractmethod
    def _choose(self, tasks: Sequence[Task], dice: random.Random) -> Task: ...


class PrioritySampler(_ByRate):
    """A task with probability ~ `sqrt(p (1 - p)) + epsilon`: often where its outcome is open, never not at all (SPO).

    Xu and Ding 2025, arXiv:2509.13232; epsilon is the public code's. p is the sampler's own estimate: the method `spo`
    keeps another, as tasks and credit may see different groups.
    """

    def __init__(
        self, tasks: Tasks, seed: int = 0, *, epsilon: float = 0.05, decay: float = 0.875, limit: int = 10_000
    ) -> None:
        if epsilon <= 0:
            raise ConfigError(f"epsilon is {epsilon:g}: above 0, or a task that was always won is never drawn again.")
        super().__init__(tasks, seed, decay, limit)
        self._epsilon = epsilon

    def weight(self, task: Task) -> float:
        rate = self.rate(task)
        return math.sqrt(rate * (1.0 - rate)) + self._epsilon

    def _choose(self, tasks: Sequence[Task], dice: random.Random) -> Task:
        return dice.choices(tasks, [self.weight(task) for task in tasks])[0]


class MediumSampler(_ByRate):
    """Of `candidates` tasks, drawn alike, the one whose chance of success is nearest to `target` (PCL).

    Prompt curriculum learning (Gao et al. 2025, arXiv:2510.01135) asks a value model that reads the prompt; here the
    chance is a table, which a task shares with its tag until it was played, and a task of which nothing is known counts
    as medium. All three numbers are choices of ours.
    """

    def __init__(
        self,
        tasks: Tasks,
        seed: int = 0,
        *,
        candidates: int = 4,
        target: float = 0.5,
        decay: float = 0.875,
        limit: int = 10_000,
    ) -> None:
        if candidates < 1 or not 0.0 <= target <= 1.0:
            raise ConfigError(f"candidates is {candidates} and target {target:g}: at least 1, and 0 to 1 are needed.")
        super().__init__(tasks, seed, decay, limit)
        self._candidates = candidates
        self._target = target

    def _choose(self, tasks: Sequence[Task], dice: random.Random) -> Task:
        shown = dice.sample(tasks, min(self._candidates, len(tasks)))
        return min(shown, key=lambda task: abs(self.rate(task) - self._target))
