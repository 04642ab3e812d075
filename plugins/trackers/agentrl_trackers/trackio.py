"""Metrics to trackio, whose dashboard is local unless it is given a space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trackio


class TrackioTracker:
    """A restarted run continues the one of the same name."""

    def __init__(self, *, project: str = "agentrl", space: str | None = None) -> None:
        self.project = project
        self.space = space
        self._started = False

    def start(self, run: str, config: Mapping[str, Any]) -> None:
        trackio.init(project=self.project, name=run, space_id=self.space, config=dict(config), resume="allow")
        self._started = True

    def log(self, update: int, metrics: Mapping[str, float]) -> None:
        trackio.log({"update": update, **metrics})

    def close(self) -> None:
        if self._started:
            trackio.finish()
            self._started = False
