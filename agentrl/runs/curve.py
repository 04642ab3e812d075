"""The curve of a run as a PNG: reward and success by batch, with the held-out evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentrl.errors import MissingDependencyError
from agentrl.evaluation.harness import Evaluation


def save_curve(path: Path, title: str, metrics: Sequence[dict[str, Any]], evaluations: Sequence[Evaluation]) -> None:
    """Raises `MissingDependencyError` where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "a curve needs matplotlib; install it with `pip install 'agentrl-framework[train]'`."
        ) from error
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    updates = [line["update"] for line in metrics]
    axes.plot(updates, [line["success"] for line in metrics], color="#1f5fa8", label="success while training")
    axes.plot(
        updates, [line["reward"] for line in metrics], color="#8a8a8a", linewidth=1, label="reward while training"
    )
    axes.fill_between(
        updates,
        [line["reward_low"] for line in metrics],
        [line["reward_high"] for line in metrics],
        color="#8a8a8a",
        alpha=0.18,
        linewidth=0,
        label="95 % interval, by task",
    )
    _held_out(axes, evaluations)
    axes.set_xlabel("update")
    axes.set_ylim(-0.02, max(1.02, *(line["reward_high"] for line in metrics)) if metrics else 1.02)
    axes.set_title(title)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="best", fontsize=9)
    figure.savefig(path, dpi=120)


def _held_out(axes: Any, evaluations: Sequence[Evaluation]) -> None:
    """One row of marks with intervals for each temperature."""
    for temperature, marker in zip(sorted({e.temperature for e in evaluations}, reverse=True), "osD^", strict=False):
        of_it = [e for e in evaluations if e.temperature == temperature and e.successes()]
        shown = sorted(of_it, key=lambda e: e.update)
        scores = [e.success() for e in shown]
        axes.errorbar(
            [e.update for e in shown],
            [s.value for s in scores],
            yerr=[[s.value - s.low for s in scores], [s.high - s.value for s in scores]],
            fmt=marker,
            capsize=3,
            color="#b5432a" if temperature > 0 else "#2a7d46",
            label=f"held-out tasks, {'greedy' if temperature == 0 else f'temperature {temperature:g}'}",
        )
