"""What was served, on the disk: an evaluation's folder whose tasks are those that clients brought.

A session is noted before its first answer is sampled; one that a kill cut short is told as a fault at the next start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from agentrl.errors import ConfigError
from agentrl.evaluation.attempts import Attempt, attempt_of, succeeded
from agentrl.evaluation.folder import differing, foreign
from agentrl.evaluation.result import MANIFEST, EvaluationResult, Manifest, load_manifest, write_json
from agentrl.rollout.episode import trajectory_id
from agentrl.rollout.recorder import Recorder
from agentrl.store.ledger import Ledger
from agentrl.store.reader import FolderReader
from agentrl.types import Status, Task, Trajectory

CUT = "the server was killed while this session was open; what it had sampled is lost."
_OPEN = "SELECT t.id, t.grp, g.task FROM trajectories t JOIN groups g ON g.id = t.grp WHERE t.payload IS NULL"


class ServedFolder:
    """The one writer of the folder. Use it with `with`; the ledger's lock keeps a second server out."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.cut = 0
        "Sessions that an earlier server left open."
        self._manifest = manifest
        self._attempts: dict[str, Attempt] = {}
        self._tasks: dict[str, int] = {}
        "Recorded attempts at each task."
        self._members: dict[str, int] = {}
        "Sessions of each group, those that are open included."
        self._ordinals: dict[str, int] = {}
        self._ledger: Ledger
        self._recorder: Recorder

    def __enter__(self) -> Self:
        """Raises `ConfigError` where something else lies here, `StoreError` where another process holds it."""
        self._check()
        self._ledger = Ledger(self.path)
        try:
            self._check()
            write_json(self.path / MANIFEST, self._manifest)
            with FolderReader(self.path) as reader:
                for row in reader.rows():
                    self._keep(reader.trajectory(row.id))
                cut = reader.query(_OPEN)
                for group, size in reader.query("SELECT id, size FROM groups ORDER BY ordinal"):
                    self._members[group], self._ordinals[group] = size, len(self._ordinals)
            self.cut = len(cut)
            self._write([_cut(name, group, task) for name, group, task in cut])
        except BaseException:
            self._ledger.close()
            raise
        self._recorder = Recorder(self._write)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ledger.close()

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

    async def record(self, trajectory: Trajectory) -> None:
        """Returns once the episode is safe on the disk."""
        await self._recorder.record(trajectory)

    def result(self) -> EvaluationResult:
        ordered = sorted(self._attempts.values(), key=lambda attempt: (attempt.task, attempt.number))
        manifest = replace(self._manifest, tasks=len(self._tasks))
        return EvaluationResult(manifest, tuple(ordered))

    def _write(self, trajectories: Sequence[Trajectory]) -> None:
        self._ledger.finish(*trajectories)
        for trajectory in trajectories:
            self._keep(trajectory)

    def _keep(self, trajectory: Trajectory) -> None:
        number = self._tasks.get(trajectory.task.id, 0)
        self._tasks[trajectory.task.id] = number + 1
        self._attempts[trajectory.id] = attempt_of(trajectory, number, succeeded)

    def _check(self) -> None:
        if (self.path / MANIFEST).exists():
            others = differing(load_manifest(self.path), self._manifest)
            if others:
                raise ConfigError(
                    f"{self.path} holds what another policy did, or another evaluation: {'; '.join(others)}. Choose "
                    "another --out."
                )
        elif self.path.exists() and (not self.path.is_dir() or foreign(self.path)):
            raise ConfigError(f"{self.path} is not empty and holds no served sessions; choose another --out.")


def _cut(name: str, group: str, task: str) -> Trajectory:
    return Trajectory(
        id=name,
        task=msgspec.json.decode(task, type=Task),
        group=group,
        steps=(),
        status=Status.INFRASTRUCTURE_ERROR,
        error=CUT,
    )
