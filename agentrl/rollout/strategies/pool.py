"""Errors of earlier batches, kept to be gone back to: a bounded pool, and a sampler that draws on it between its tasks.

The pool changes where the sampler is asked and told, and nowhere else, so its state belongs to a checkpoint as a
sampler's does, and a run that was killed draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

from agentrl.protocols import TaskSampler
from agentrl.types import JSON, Group, Task, Trajectory

_TAG = "goes on from "
_TURN = 1.0 - 1e-9


@dataclass(frozen=True, slots=True)
class Mistake:
    """A step that was refused, in an episode that failed."""

    task: Task
    trajectory: str
    at: int
    "The step after the refused one: where another try begins."
    error: str

    def order(self) -> Task:
        """The task, marked so that `read_order` finds the place again. It lies in the ledger with the group."""
        return replace(self.task, tags=(*self.task.tags, f"{_TAG}{self.trajectory}@{self.at}"))


def read_order(task: Task) -> tuple[str, int] | None:
    """The trajectory and the step that a group goes on from; None for an ordinary task."""
    for tag in task.tags:
        if tag.startswith(_TAG):
            name, _, at = tag.removeprefix(_TAG).rpartition("@")
            return name, int(at)
    return None


class PoolingSampler:
    """Implements `protocols.TaskSampler`: another one's tasks, and for every `share` of a task one from the pool.

    The last error comes first, as it is nearest to the present policy. The pool holds `size` of them, forgets the
    oldest, and keeps one of those of one task that read the same. Errors of groups that come from the pool stay out,
    and the inner sampler hears nothing of those groups: their outcome says little of the whole task.
    """

    def __init__(self, inner: TaskSampler, size: int, share: float) -> None:
        self._inner, self._size, self._share = inner, size, share
        self._pool: list[Mistake] = []
        self._due = 0.0
        "Of a task from the pool; what is due while it is empty does not add up."

    def next(self, count: int) -> Sequence[Task]:
        taken = [self._turn() for _ in range(count)]
        drawn = iter(self._inner.next(sum(mistake is None for mistake in taken)))
        found = (next(drawn, None) if mistake is None else mistake.order() for mistake in taken)
        return [task for task in found if task is not None]

    def observe(self, group: Group) -> None:
        if read_order(group.task) is not None:
            return
        self._inner.observe(group)
        for mistake in mistakes(group):
            same = [m for m in self._pool if (m.task.id, m.error) != (mistake.task.id, mistake.error)]
            self._pool = [*same, mistake][-self._size :]

    def state(self) -> JSON:
        return {"inner": self._inner.state(), "pool": [asdict(m) for m in self._pool], "due": self._due}

    def restore(self, state: JSON) -> None:
        self._inner.restore(state["inner"])
        self._pool = [_mistake(entry) for entry in state["pool"]]
        self._due = float(state["due"])

    def _turn(self) -> Mistake | None:
        self._due = min(1.0, self._due + self._share)
        if self._due < _TURN or not self._pool:
            return None
        self._due -= 1.0
        return self._pool.pop()


def mistakes(group: Group) -> Iterator[Mistake]:
    """The last error of each failed episode that went on behind it."""
    for trajectory in group.trajectories:
        at = 0 if trajectory.success or not trajectory.status.trains else last_error(trajectory)
        if at:
            yield Mistake(group.task, trajectory.id, at, trajectory.steps[at - 1].error)


def last_error(trajectory: Trajectory) -> int:
    """The step behind the last refused one that another step followed; 0 where there is none."""
    steps = trajectory.steps
    return max((after.index for before, after in pairwise(steps) if before.error), default=0)


def _mistake(entry: Mapping[str, JSON]) -> Mistake:
    task = Task(**{**entry["task"], "tags": tuple(entry["task"]["tags"])})
    return Mistake(task, str(entry["trajectory"]), int(entry["at"]), str(entry["error"]))
