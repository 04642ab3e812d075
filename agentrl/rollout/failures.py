"""When too many attempts fail: the run stops and says why.

Only the last `size` attempts count, so a bad minute in a long run is forgiven and a broken environment is not.
"""

from __future__ import annotations

import re
from collections import Counter, deque

from agentrl.errors import TrainingError
from agentrl.types import Task


class FailureWindow:
    """The outcomes of the last attempts, oldest forgotten first."""

    def __init__(self, size: int, bound: float) -> None:
        self._bound = bound
        self._outcomes: deque[tuple[Task, str] | None] = deque(maxlen=size)
        self._failed = 0

    def passed(self) -> None:
        self._push(None)

    def failed(self, task: Task, error: str) -> None:
        self._push((task, error))

    def verdict(self) -> TrainingError | None:
        """The error that ends the run, once the window is full and more of it failed than allowed."""
        size = len(self._outcomes)
        if size < (self._outcomes.maxlen or 0) or self._failed <= self._bound * size:
            return None
        # Numbers differ from one failure to the next of the same kind (ports, ids, seconds): count them as one.
        kinds: Counter[str] = Counter()
        example: dict[str, tuple[Task, str]] = {}
        for task, error in filter(None, self._outcomes):
            kind = re.sub(r"\d+", "#", error)
            kinds[kind] += 1
            example[kind] = (task, error)
        lines = [f"  {count} times: {example[kind][1]}" for kind, count in kinds.most_common(3)]
        task = example[kinds.most_common(1)[0][0]][0]
        return TrainingError(
            f"{self._failed} of the last {size} attempts at an episode failed; allowed is a share of {self._bound:g} "
            f"(failure_bound). The commonest errors:\n" + "\n".join(lines) + "\n"
            f"Task {task.id!r} (environment {task.env!r}, seed {task.seed}) reproduces the first."
        )

    def _push(self, outcome: tuple[Task, str] | None) -> None:
        if len(self._outcomes) == self._outcomes.maxlen and self._outcomes[0] is not None:
            self._failed -= 1
        self._outcomes.append(outcome)
        self._failed += outcome is not None
