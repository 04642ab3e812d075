"""What happened in a run or an evaluation as plots, each as a PNG and as an SVG.

A quantity that was not measured has no panel; a gap in a line is a batch without a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentrl.errors import MissingDependencyError
from agentrl.evaluation.result import EvaluationResult
from agentrl.outcomes import Outcome
from agentrl.runs.curve import save_curve
from agentrl.runs.folder import RunFolder
from agentrl.runs.sides import held_out
from agentrl.sections import Config
from agentrl.training.metrics import read_metrics

FORMATS = ("png", "svg")
PANELS = {
    "success": "success, share of episodes",
    "steps_per_episode": "steps an episode",
    "tokens_per_episode": "sampled tokens an episode",
    "call_validity": "valid calls, share",
    "entropy": "entropy, nats a token",
    "mismatch": "learner and sampler differ, nats",
    "flat_groups": "groups without signal, share",
    "truncated": "ended by a limit, share",
    "failed": "ended by a fault, share",
    "staleness": "staleness, policy versions",
    "update_gradient_norm": "norm of the gradient",
    "tokens_per_second": "sampled tokens a second",
}
"Metrics of a batch that have a panel, and what they are."
_BLUE, _GREY, _RED = "#1f5fa8", "#8a8a8a", "#b5432a"
_COLORS = {Outcome.SUCCESS: _BLUE, Outcome.SUSPECTED_HACK: _RED}


def run_plots(run: RunFolder, config: Config, folder: Path) -> list[Path]:
    """`curve` (reward, success, held-out evaluations) and `training` (a panel a metric) of the batches done so far."""
    metrics = read_metrics(run.metrics) if run.metrics.is_file() else []
    evaluations = [evaluation for _, evaluation in held_out(run)]
    title = f"{config.name}: {config.method.name}"
    paths = [folder / f"curve.{kind}" for kind in FORMATS]
    for path in paths:
        save_curve(path, title, metrics, evaluations)
    return paths + _training(title, metrics, folder)


def evaluation_plots(result: EvaluationResult, folder: Path) -> list[Path]:
    """`outcomes`: what became of the attempts, under the score."""
    counts = result.outcomes()
    if not counts:
        return []
    names, values = list(counts)[::-1], list(counts.values())[::-1]
    figure = _figure(6.5, 1.2 + 0.35 * len(names))
    axes = figure.subplots()
    colors = [_COLORS.get(Outcome(name), _RED if not Outcome(name).scored else _GREY) for name in names]
    bars = axes.barh([name.replace("_", " ") for name in names], values, color=colors)
    axes.bar_label(bars, padding=3)
    score, null = result.interval(), result.null
    told = f"{result.manifest.policy} on {result.manifest.suite} {result.manifest.version}\n"
    told += f"{score.percent()} of {score.tasks} tasks" if score else "nothing was scored"
    axes.set_title(told + (f"; saying nothing: {null.score.percent()}" if null else ""), fontsize=10)
    axes.set_xlabel("attempts")
    axes.spines[["top", "right"]].set_visible(False)
    return _saved(figure, folder, "outcomes")


def _training(title: str, metrics: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    shown = [name for name in PANELS if any(line.get(name) is not None for line in metrics)]
    if not shown:
        return []
    rows = -(-len(shown) // 3)
    figure = _figure(10.5, 0.6 + 2.1 * rows)
    every = figure.subplots(rows, 3, squeeze=False).ravel()
    for axes, name in zip(every, shown, strict=False):
        values = [float("nan") if line.get(name) is None else line[name] for line in metrics]
        axes.plot([line["batch"] for line in metrics], values, color=_BLUE, linewidth=1.2)
        axes.set_title(PANELS[name], fontsize=9)
        axes.grid(alpha=0.25)
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in every[len(shown) :]:
        axes.set_visible(False)
    figure.suptitle(f"{title}, by batch", fontsize=11)
    return _saved(figure, folder, "training")


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "plots need matplotlib; install it with `pip install 'agentrl-framework[train]'`."
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def _saved(figure: Any, folder: Path, name: str) -> list[Path]:
    paths = [folder / f"{name}.{kind}" for kind in FORMATS]
    for path in paths:
        figure.savefig(path, dpi=120)
    return paths
