"""An evaluation on the disk: its manifest, and the ledger that keeps every episode as it ends.

A folder holds one evaluation. What is in the ledger is never played again; what a fault ended is open until it is
played well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from agentrl.errors import ConfigError
from agentrl.evaluation.attempts import Attempt, attempt_of
from agentrl.evaluation.result import MANIFEST, EvaluationResult, Manifest, NullRow, load_manifest, write_json
from agentrl.evaluation.suite import Suite
from agentrl.rollout.episode import trajectory_id
from agentrl.rollout.recorder import Recorder
from agentrl.store.ledger import LEDGER, Ledger
from agentrl.store.reader import FolderReader
from agentrl.types import JSON, Task, Trajectory

Play = tuple[Task, int]
"A task and the number of the attempt at it, from 0."


class EvaluationFolder:
    """The one writer of the folder. Use it with `with`; the ledger's lock keeps a second evaluation out."""

    def __init__(self, path: Path, suite: Suite, manifest: Manifest) -> None:
        self.path = path
        self.attempts: dict[tuple[str, int], Attempt] = {}
        "What was played so far, faults included."
        self._suite = suite
        self._manifest = manifest
        self._places = {task.id: place for place, task in enumerate(suite.tasks)}
        self._ledger: Ledger

    def __enter__(self) -> Self:
        """Raises `ConfigError` where another evaluation lies here, `StoreError` where another process holds it."""
        self._check()
        self._ledger = Ledger(self.path)
        try:
            self._check()
            write_json(self.path / MANIFEST, self._manifest)
            with FolderReader(self.path) as reader:
                for row in reader.rows():
                    trajectory = reader.trajectory(row.id)
                    if row.task in self._places:
                        self._keep(trajectory)
        except BaseException:
            self._ledger.close()
            raise
        self._recorder = Recorder(self._write)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ledger.close()

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

    async def record(self, trajectory: Trajectory) -> None:
        """Returns once the episode is safe on the disk."""
        await self._recorder.record(trajectory)

    async def settle(self) -> None:
        """Wait for what is being written, also where whoever played it was cancelled."""
        await asyncio.shield(self._recorder.close())

    def result(self, null: NullRow | None, stopped: str) -> EvaluationResult:
        """Everything that was played in this folder."""
        ordered = sorted(self.attempts.values(), key=lambda attempt: (self._places[attempt.task], attempt.number))
        return EvaluationResult(self._manifest, tuple(ordered), null, stopped)

    def _write(self, trajectories: Sequence[Trajectory]) -> None:
        self._ledger.finish(*trajectories)
        for trajectory in trajectories:
            self._keep(trajectory)

    def _keep(self, trajectory: Trajectory) -> None:
        number = int(trajectory.id.rpartition("-")[2])
        self.attempts[trajectory.task.id, number] = attempt_of(trajectory, number, self._suite.score)

    def _played(self) -> int:
        """Episodes that ended here; what was begun and never played binds nobody."""
        if not (self.path / LEDGER).exists():
            return 0
        with FolderReader(self.path) as reader:
            return reader.count()

    def _check(self) -> None:
        if (self.path / MANIFEST).exists():
            others = differing(load_manifest(self.path), self._manifest)
            if others and self._played():
                raise ConfigError(
                    f"{self.path} holds another evaluation: {'; '.join(others)}. Choose another --out, or delete "
                    "the folder to evaluate anew."
                )
        elif self.path.exists() and (not self.path.is_dir() or foreign(self.path)):
            raise ConfigError(f"{self.path} is not empty and is no evaluation; choose another --out.")


def foreign(path: Path) -> list[str]:
    """What lies there and is no evaluation's own."""
    ours = (LEDGER, "ledger.", "payloads.bin", "trained.bin", "evaluation.partial", "vllm.")
    return [found.name for found in path.iterdir() if not found.name.startswith(ours)]


def differing(old: Manifest, new: Manifest) -> list[str]:
    """What may not change within one evaluation, in words."""
    before, after = _identity(old), _identity(new)
    return [
        f"{name} was {before.get(name)!r} and is {after.get(name)!r}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _identity(manifest: Manifest) -> Mapping[str, JSON]:
    conditions = manifest.conditions
    return {
        "suite": manifest.suite,
        "suite version": manifest.version,
        "suite hash": manifest.hash,
        **{f"policy {key}": value for key, value in manifest.identity.items()},
        "temperature": conditions.temperature,
        "seed": conditions.seed,
        "max-tokens": conditions.max_tokens,
        **{f"version of {name}": version for name, version in manifest.distributions.items()},
    }
