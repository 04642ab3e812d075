"""A folder of played episodes, whoever played them: its manifest, and the ledger that keeps each as it ends.

A folder is of one policy under one set of conditions, and has one writer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from agentrl.errors import ConfigError
from agentrl.evaluation.result import MANIFEST, Manifest, load_manifest, write_json
from agentrl.rollout.recorder import Recorder
from agentrl.store.ledger import LEDGER, Ledger
from agentrl.store.reader import FolderReader
from agentrl.types import JSON, Trajectory


class EpisodeFolder(ABC):
    """The one writer of the folder. Use it with `with`; the ledger's lock keeps a second one out."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self._manifest = manifest
        self._ledger: Ledger
        self._recorder: Recorder

    def __enter__(self) -> Self:
        """Raises `ConfigError` where something else lies here, `StoreError` where another process holds it."""
        self._check()
        self._ledger = Ledger(self.path)
        try:
            # Once more: who held the lock until now may have written.
            self._check()
            write_json(self.path / MANIFEST, self._manifest)
            with FolderReader(self.path) as reader:
                self._take_up(reader)
        except BaseException:
            self._ledger.close()
            raise
        self._recorder = Recorder(self._write)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ledger.close()

    async def record(self, trajectory: Trajectory) -> None:
        """Returns once the episode is safe on the disk."""
        await self._recorder.record(trajectory)

    @abstractmethod
    def _take_up(self, reader: FolderReader) -> None:
        """Learn what the folder holds already."""

    @abstractmethod
    def _keep(self, trajectory: Trajectory) -> None:
        """Count an episode that is on the disk."""

    @abstractmethod
    def _binds(self, reader: FolderReader) -> bool:
        """Whether what lies here keeps other policies and conditions out."""

    def _write(self, trajectories: Sequence[Trajectory]) -> None:
        self._ledger.finish(*trajectories)
        for trajectory in trajectories:
            self._keep(trajectory)

    def _check(self) -> None:
        if (self.path / MANIFEST).exists():
            others = _differing(load_manifest(self.path), self._manifest)
            if others and (self.path / LEDGER).exists():
                with FolderReader(self.path) as reader:
                    if self._binds(reader):
                        raise ConfigError(
                            f"{self.path} holds another evaluation: {'; '.join(others)}. Choose another --out, or "
                            "delete the folder to begin anew."
                        )
        elif self.path.exists() and (not self.path.is_dir() or _foreign(self.path)):
            raise ConfigError(f"{self.path} is not empty and is no evaluation; choose another --out.")


def _foreign(path: Path) -> list[str]:
    """What lies there and is no evaluation's own."""
    ours = (LEDGER, "ledger.", "payloads.bin", "trained.bin", "answers.bin", "evaluation.partial", "vllm.")
    return [found.name for found in path.iterdir() if not found.name.startswith(ours)]


def _differing(old: Manifest, new: Manifest) -> list[str]:
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
