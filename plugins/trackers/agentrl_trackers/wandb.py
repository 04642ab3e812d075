"""Metrics to Weights & Biases. A restarted run continues the same W&B run, found by its id."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import wandb


class WandbTracker:
    """`folder` is the run's. Without a login use `mode = "offline"` and `wandb sync` later."""

    def __init__(
        self,
        folder: Path,
        *,
        project: str = "agentrl",
        entity: str | None = None,
        mode: Literal["online", "offline"] = "online",
    ) -> None:
        self.folder = Path(folder)
        self.project = project
        self.entity = entity
        self.mode: Literal["online", "offline"] = mode
        self._run: Any = None

    def start(self, run: str, config: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # The folder is the run's identity: the same command again continues the same run.
        identity = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:16]
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            name=run,
            id=identity,
            resume="allow" if self.mode == "online" else None,
            mode=self.mode,
            dir=str(self.folder),
            config=dict(config),
        )

    def log(self, update: int, metrics: Mapping[str, float]) -> None:
        # W&B's own step must only rise; an update is logged as a value, so a batch without an update is kept too.
        self._run.log({"update": update, **metrics})

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None
