"""Which tasks come next: a walk through a set of tasks, finite or endless.

Within an epoch no task is lost and none is given twice, also across a restart from `state`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from agentrl.errors import ConfigError, InvalidDataError, StoreError
from agentrl.types import JSON, Group, Task


class SequentialSampler:
    """Reads the set in windows and shuffles each: a finite set no larger than a window is shuffled as a whole.

    `tasks` begins the set anew, in the same order every time. An endless one is walked in one endless epoch.
    """

    def __init__(self, tasks: Callable[[], Iterable[Task]], seed: int = 0, window: int = 512) -> None:
        if window < 1:
            raise ConfigError(f"the shuffle window is {window} tasks; at least 1 is needed.")
        self._tasks = tasks
        self._seed = seed
        self._window = window
        self._epoch = 0
        self._position = 0
        self._walk = self._from(0, 0)

    def next(self, count: int) -> Sequence[Task]:
        """Raises `ConfigError` where the set is empty."""
        found: list[Task] = []
        while len(found) < count:
            found.extend(task := list(islice(self._walk, count - len(found))))
            self._position += len(task)
            if len(found) < count:
                if self._position == 0:
                    raise ConfigError("the environment has no tasks in this split: `tasks(split)` gave none.")
                self._epoch, self._position = self._epoch + 1, 0
                self._walk = self._from(self._epoch, 0)
        return found

    def observe(self, group: Group) -> None:
        """Results do not change the order."""

    def state(self) -> JSON:
        return {"seed": self._seed, "window": self._window, "epoch": self._epoch, "position": self._position}

    def restore(self, state: JSON) -> None:
        """Raises `ConfigError` where the state is that of another sampler, `StoreError` where tasks are missing."""
        try:
            seed, window = int(state["seed"]), int(state["window"])
            epoch, position = int(state["epoch"]), int(state["position"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{state!r} is no state of a sequential sampler: the run was begun with another one. Name that in "
                "rollout.sampler, or start in a new folder."
            ) from error
        if (seed, window) != (self._seed, self._window):
            raise ConfigError(
                f"the run was begun with seed {seed} and shuffle window {window}, not {self._seed} and {self._window}: "
                "set them back, or start in a new folder."
            )
        self._epoch, self._position = epoch, position
        self._walk = self._from(epoch, position)

    def _from(self, epoch: int, position: int) -> Iterator[Task]:
        """The tasks of `epoch`, without the first `position` of them."""
        number, skipped = divmod(position, self._window)
        source = iter(self._tasks())
        passed = sum(1 for _ in islice(source, number * self._window))
        while window := list(islice(source, self._window)):
            _check_ids(window)
            random.Random(f"{self._seed} {epoch} {number}").shuffle(window)
            passed += min(skipped, len(window))
            yield from window[skipped:]
            number, skipped = number + 1, 0
        if passed < position:
            raise StoreError(f"the task set has {passed} tasks; the run had used {position} of it. It was changed.")


def _check_ids(window: Sequence[Task]) -> None:
    seen: set[str] = set()
    for task in window:
        if task.id in seen:
            raise InvalidDataError(f"two tasks have the id {task.id!r}; an id is unique in its set.")
        seen.add(task.id)
