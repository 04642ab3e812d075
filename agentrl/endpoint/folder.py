"""What was served, on the disk: an evaluation's folder whose tasks are those that clients brought.

A session is noted before its first answer is sampled, and each answer before it is given; a session that a kill cut
short is recorded as a fault, with its answers, at the next start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import msgspec

from agentrl.endpoint.journal import ANSWERS, Journal
from agentrl.evaluation.attempts import Attempt, attempt_of, succeeded
from agentrl.evaluation.episodes import EpisodeFolder
from agentrl.evaluation.result import EvaluationResult, Manifest
from agentrl.rollout.episode import trajectory_id
from agentrl.store.reader import FolderReader
from agentrl.types import Status, Step, Task, Trajectory

CUT = "the server was killed while this session was open; the answers that it had given are kept, and are not scored."
_OPEN = "SELECT t.id, t.grp, g.task FROM trajectories t JOIN groups g ON g.id = t.grp WHERE t.payload IS NULL"


class ServedFolder(EpisodeFolder):
    """Its tasks are those of the clients."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        super().__init__(path, manifest)
        self.cut = 0
        "Sessions that an earlier server left open."
        self._attempts: dict[str, Attempt] = {}
        self._tasks: dict[str, int] = {}
        "Recorded attempts at each task."
        self._members: dict[str, int] = {}
        "Sessions of each group, those that are open included."
        self._ordinals: dict[str, int] = {}
        self._journal = Journal(path / ANSWERS)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()
        super().__exit__(kind, error, trace)

    def member(self, group: str) -> int:
        """The number of a new session in `group`."""
        number = self._members.get(group, 0)
        self._members[group] = number + 1
        self._ordinals.setdefault(group, len(self._ordinals))
        return number

    def issue(self, group: str, task: Task) -> None:
        """Note the sessions of `group` before they begin. Blocking."""
        names = [trajectory_id(group, number) for number in range(self._members[group])]
        self._ledger.extend([(self._ordinals[group], group, task, names)])

    def answer(self, episode: str, step: Step) -> None:
        """Keep an answer before its client is told: a kill of the server does not lose it."""
        self._journal.keep(episode, step)

    async def record(self, trajectory: Trajectory) -> None:
        await super().record(trajectory)
        self._journal.forget(trajectory.id)

    def result(self) -> EvaluationResult:
        ordered = sorted(self._attempts.values(), key=lambda attempt: (attempt.task, attempt.number))
        manifest = replace(self._manifest, tasks=len(self._tasks))
        return EvaluationResult(manifest, tuple(ordered))

    def _take_up(self, reader: FolderReader) -> None:
        for row in reader.rows():
            self._keep(reader.trajectory(row.id))
        cut = reader.query(_OPEN)
        for group, size in reader.query("SELECT id, size FROM groups ORDER BY ordinal"):
            self._members[group], self._ordinals[group] = size, len(self._ordinals)
        self.cut = len(cut)
        given = self._journal.read()
        self._write([_cut(name, group, task, given.get(name, ())) for name, group, task in cut])
        self._journal.clear()

    def _keep(self, trajectory: Trajectory) -> None:
        number = self._tasks.get(trajectory.task.id, 0)
        self._tasks[trajectory.task.id] = number + 1
        self._attempts[trajectory.id] = attempt_of(trajectory, number, succeeded)

    def _binds(self, reader: FolderReader) -> bool:
        """Also a session that was cut is the policy's that answered it."""
        return True


def _cut(name: str, group: str, task: str, steps: Sequence[Step]) -> Trajectory:
    return Trajectory(
        id=name,
        task=msgspec.json.decode(task, type=Task),
        group=group,
        steps=tuple(steps),
        status=Status.INFRASTRUCTURE_ERROR,
        forks=sum(step.context is None and step.index > 0 for step in steps),
        error=CUT,
    )
