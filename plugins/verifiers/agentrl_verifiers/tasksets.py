"""The tasks of a taskset: which are trained on, which are held out, and how one is found again.

A task is named by its place and its key; where another one stands there, that is a fault and not another episode.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from agentrl import EnvironmentFault, Task

FIFTH = 5
"Where no `test_config` says what is held out, every fifth task is."
ENDLESS_TEST = 256
"Held-out tasks of a taskset without an end."


class Tasksets:
    """A loaded taskset and, where there is one, that of the held-out tasks."""

    def __init__(self, name: str, environment: str, train: Any, test: Any = None) -> None:
        """environment: what tasks are said to be of."""
        self.name = name
        self._environment = environment
        self._train = train
        self._test = test

    def tasks(self, split: str) -> Iterator[Task]:
        """In the taskset's order; both splits end where it ends."""
        if split not in ("train", "test"):
            raise ValueError(f"there is no split {split!r}; there are 'train' and 'test'.")
        source = self._source(split)
        found = enumerate(source)
        if self._test is None:
            found = ((place, one) for place, one in found if (place % FIFTH == FIFTH - 1) == (split == "test"))
        end = ENDLESS_TEST if split == "test" and not source.bounded else None
        for place, one in islice(found, end):
            name = str(one.data.id or place)
            data = {"place": place, "split": split, "key": one.key}
            yield Task(f"{self.name}-{split}-{name}", self._environment, place, data, split)

    def find(self, task: Task) -> Any:
        """Their task. Raises `EnvironmentFault` where the taskset has another one there now."""
        place = int(task.data["place"])
        found = next(iter(self._source(str(task.data["split"])).include(idx=[f"{place}:{place + 1}"])), None)
        if found is None or found.key != task.data["key"]:
            raise EnvironmentFault(f"the taskset {self.name!r} has another task at {place} than {task.id!r}.")
        return found

    def _source(self, split: str) -> Any:
        return self._test if split == "test" and self._test is not None else self._train


def reach(path: str, taskset: str) -> str:
    """Let `taskset` be imported from the folder `path`; the folder. Raises `ValueError` where it is none."""
    if not path:
        return ""
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise ValueError(f"has path {path!r}, which is no folder; name the one in which {taskset!r} lies.")
    sys.path.insert(0, str(folder))
    return str(folder)
