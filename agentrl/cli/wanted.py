"""What `agentrl export` is asked for: at least one form, and each one that there is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from agentrl.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Wanted:
    """Empty words where a form is not wanted."""

    weights: Annotated[str, typer.Option(help="merged or adapter, with a model card.")] = ""
    trajectories: Annotated[str, typer.Option(help="parquet: a row an episode.")] = ""
    sft: Annotated[str, typer.Option(help="jsonl: successes as chat messages.")] = ""
    results: Annotated[list[Path] | None, typer.Option(help="An evaluation for the card. Repeatable.")] = None
    replace: Annotated[bool, typer.Option("--replace", help="Replace OUT where it is there.")] = False

    def check(self) -> None:
        """Raises `ConfigError` for a form that is not known, and where nothing is asked for."""
        from agentrl.export.weights import FORMS

        allowed = {"--weights": (self.weights, tuple(FORMS)), "--trajectories": (self.trajectories, ("parquet",))}
        allowed["--sft"] = (self.sft, ("jsonl",))
        for name, (said, forms) in allowed.items():
            if said and said not in forms:
                raise ConfigError(f"{name} {said} is not known; give {' or '.join(forms)}.")
        if not (self.weights or self.trajectories or self.sft):
            raise ConfigError(
                "nothing is asked for: give --weights merged (or adapter), --trajectories parquet or --sft jsonl."
            )
