"""The folder of a run: where everything lies, and whether a recipe may go on in it."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl.config import dump_toml
from agentrl.errors import ConfigError, StoreError
from agentrl.files import write_whole
from agentrl.sections import Config
from agentrl.toml import flat
from agentrl.types import JSON

METHOD_STATE = "method.json"
FREE = {
    "environment.runs_in",
    "training.batches",
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "training.threads",
}
"Keys that a continued run may change; whole sections: evaluation, report."


OURS = {
    "config.partial",
    "ledger.lock",
    "ledger.sqlite",
    "ledger.sqlite-wal",
    "ledger.sqlite-shm",
    "payloads.bin",
    "trained.bin",
}
"What a run that was killed in its first moments leaves beside no recipe."


@dataclass(frozen=True, slots=True)
class RunFolder:
    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "config.toml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def warm_model(self) -> Path:
        return self.path / "warm_start" / "model"

    @property
    def warm_report(self) -> Path:
        return self.path / "warm_start" / "report.json"

    @property
    def blank_model(self) -> Path:
        return self.path / "warm_start" / "blank"

    @property
    def newest_model(self) -> Path:
        """The weights of the last checkpoint. Raises `ConfigError` where there is none."""
        found = sorted((self.path / "checkpoints").glob("batch-*/model"))
        if not found:
            raise ConfigError(f"the run {self.path} has no checkpoint yet; train it first.")
        return found[-1]

    @property
    def null_score(self) -> Path:
        return self.path / "null.json"

    @property
    def curve(self) -> Path:
        return self.path / "curve.png"

    def evaluation(self, update: int, temperature: float) -> Path:
        return self.path / "evaluations" / f"update-{update:06d}-temperature-{temperature:g}.json"

    def forget_evaluations_after(self, update: int) -> None:
        """Evaluations of weights that a kill has lost; the run will come to other ones."""
        for path in (self.path / "evaluations").glob("update-*.json"):
            if int(path.name.split("-")[1]) > update:
                path.unlink()

    def check(self, config: Config) -> None:
        """Whether the run may begin here, or go on. Raises `ConfigError` with the keys that differ; writes nothing."""
        if self.recipe.exists():
            try:
                begun = tomllib.loads(self.recipe.read_text())
            except (OSError, ValueError) as error:
                raise StoreError(f"{self.recipe} cannot be read: {error}. Begin in a new folder.") from error
            differing = _differing(begun, tomllib.loads(dump_toml(config)))
            if differing:
                raise ConfigError(
                    f"{self.path} was begun with another recipe: {'; '.join(differing)}. Give the run another name "
                    "(name=...) or --run-folder, or delete the folder to begin anew."
                )
        elif self.path.exists() and (not self.path.is_dir() or any(p.name not in OURS for p in self.path.iterdir())):
            raise ConfigError(f"{self.path} is not empty and is no run of agentrl; choose another --run-folder.")

    def claim(self, config: Config) -> None:
        """Write the resolved recipe. For who holds the ledger's lock: another process may be running here."""
        self.check(config)
        write_whole(self.recipe, dump_toml(config).encode())


def _differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    before, after = flat(old), flat(new)
    keys = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    bound = [key for key in keys if key not in FREE and key.split(".")[0] not in ("evaluation", "report")]
    return [f"{key} was {before.get(key)!r} and is {after.get(key)!r}" for key in bound]


def write_method_state(checkpoint: Path, state: JSON) -> None:
    """Beside a learner's checkpoint, before the ledger's head names the folder."""
    with (checkpoint / METHOD_STATE).open("w", encoding="utf-8") as file:
        json.dump(state, file)


def sync_checkpoint(checkpoint: Path) -> None:
    """Returns when everything that was written into the folder would survive a power cut. Raises `StoreError`."""
    try:
        for path in [*checkpoint.rglob("*"), checkpoint]:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    except OSError as error:
        raise StoreError(f"{checkpoint} cannot be synced: {error}. Free space, then resume.") from error


def read_method_state(checkpoint: Path) -> dict[str, JSON]:
    """Empty where the checkpoint was written without one."""
    path = checkpoint / METHOD_STATE
    found: dict[str, JSON] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found
