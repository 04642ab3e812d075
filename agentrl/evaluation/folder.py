"""An evaluation on the disk: what of a suite was played, and what is still to be played.

What is in the ledger is never played again; what a fault ended is open until it is played well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from agentrl.evaluation.attempts import Attempt, attempt_of
from agentrl.evaluation.episodes import EpisodeFolder
from agentrl.evaluation.result import EvaluationResult, Manifest, NullRow
from agentrl.evaluation.suite import Suite
from agentrl.rollout.episode import trajectory_id
from agentrl.store.reader import FolderReader
from agentrl.types import Task, Trajectory

Play = tuple[Task, int]
"A task and the number of the attempt at it, from 0."


class EvaluationFolder(EpisodeFolder):
    """Its tasks are those of a suite, each played so many times."""

    def __init__(self, path: Path, suite: Suite, manifest: Manifest) -> None:
        super().__init__(path, manifest)
        self.attempts: dict[tuple[str, int], Attempt] = {}
        "What was played so far, faults included."
        self._suite = suite
        self._places = {task.id: place for place, task in enumerate(suite.tasks)}

    def issue(self, plays: Sequence[Play]) -> None:
        """Note what is going to be played, before it begins."""
        counts: dict[str, int] = {}
        for task, number in plays:
            counts[task.id] = max(counts.get(task.id, 0), number + 1)
        tasks = {task.id: task for task, _ in plays}
        self._ledger.extend(
            [
                (self._places[name], name, tasks[name], [trajectory_id(name, number) for number in range(count)])
                for name, count in counts.items()
            ]
        )

    def open(self, plays: Sequence[Play]) -> list[Play]:
        """Those that were not played yet, or that a fault ended."""
        found = []
        for task, number in plays:
            attempt = self.attempts.get((task.id, number))
            if attempt is None or not attempt.scored:
                found.append((task, number))
        return found

    async def settle(self) -> None:
        """Wait for what is being written, also where whoever played it was cancelled."""
        await asyncio.shield(self._recorder.close())

    def result(self, null: NullRow | None, stopped: str) -> EvaluationResult:
        """Everything that was played in this folder."""
        ordered = sorted(self.attempts.values(), key=lambda attempt: (self._places[attempt.task], attempt.number))
        return EvaluationResult(self._manifest, tuple(ordered), null, stopped)

    def _take_up(self, reader: FolderReader) -> None:
        for row in reader.rows():
            trajectory = reader.trajectory(row.id)
            if row.task in self._places:
                self._keep(trajectory)

    def _keep(self, trajectory: Trajectory) -> None:
        number = int(trajectory.id.rpartition("-")[2])
        self.attempts[trajectory.task.id, number] = attempt_of(trajectory, number, self._suite.score)

    def _binds(self, reader: FolderReader) -> bool:
        """What was begun and never played binds nobody."""
        return reader.count() > 0
