"""The numbers of a run by batch: what `metrics.jsonl` holds, and its held-out evaluations with their intervals.

A curve that was never measured is not there; a value that was not measured is left out, never drawn as 0.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from agentrl.evaluation.harness import Evaluation
from agentrl.evaluation.statistics import Interval
from agentrl.view.shapes import Curve

MOST_POINTS = 1000
_NOT_CURVES = {"batch", "time", "update", "reward_low", "reward_high", "updated"}
_KNOWN = {
    "reward": ("reward while training", ""),
    "success": ("success while training", "share"),
    "call_validity": ("valid tool calls", "share"),
    "flat_groups": ("groups without signal", "share"),
    "truncated": ("episodes cut by a limit", "share"),
    "failed": ("episodes lost to faults", "share"),
    "entropy": ("entropy per token", "nats"),
    "mismatch": ("learner and sampler differ", "nats"),
    "update_gradient_norm": ("gradient norm", ""),
    "calls": ("tool calls per episode", ""),
    "steps_per_episode": ("steps per episode", ""),
    "tokens_per_episode": ("sampled tokens per episode", "tokens"),
    "staleness": ("staleness", ""),
    "tokens_per_second": ("sampled tokens per second", "tokens"),
    "seconds_generate": ("time for sampling", "seconds"),
    "seconds_train": ("time for the learner", "seconds"),
    "seconds_publish": ("time for publishing weights", "seconds"),
    "seconds_wait": ("time the learner idled", "seconds"),
}
"Shown first, in this order; by name, what it is and its unit."


def held_out_curves(evaluations: Sequence[Evaluation], metrics: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """One for each temperature, by the batch after which the weights were measured; 0 is before training."""
    batch_of: dict[int, int] = {0: 0}
    for line in metrics:
        # Weights stay the same through batches without an update: they are those of the first that had them.
        batch_of.setdefault(int(line.get("update") or 0), int(line["batch"]))
    found = []
    for temperature in sorted({e.temperature for e in evaluations}):
        of_it = [e for e in evaluations if e.temperature == temperature and e.successes() and e.update in batch_of]
        points = [(batch_of[e.update], success_of(e)) for e in sorted(of_it, key=lambda e: e.update)]
        if points:
            found.append(
                Curve(
                    name=f"held_out_success_{temperature:g}",
                    label=f"success on held-out tasks, {manner(temperature)}",
                    unit="share",
                    x=[batch for batch, _ in points],
                    y=[score.value for _, score in points],
                    low=[score.low for _, score in points],
                    high=[score.high for _, score in points],
                )
            )
    return found


@functools.lru_cache(maxsize=1024)
def success_of(evaluation: Evaluation) -> Interval:
    """Its score, resampled once: a run that goes on is looked at again and again."""
    return evaluation.success()


def metric_curves(metrics: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Known ones first; every other number under its own name."""
    names = {name for line in metrics for name in line} - _NOT_CURVES
    names = {name for name in names if not name.startswith("held_out_success_")}
    ordered = [name for name in _KNOWN if name in names] + sorted(names - _KNOWN.keys())
    lines = _thinned(metrics)
    curves = [_curve(name, lines) for name in ordered]
    return [curve for curve in curves if curve.x]


def manner(temperature: float) -> str:
    return "greedy" if temperature == 0 else f"sampled at temperature {temperature:g}"


def _curve(name: str, lines: Sequence[Mapping[str, Any]]) -> Curve:
    label, unit = _KNOWN.get(name, (name.replace("_", " "), "seconds" if "seconds" in name else ""))
    measured = [line for line in lines if isinstance(line.get(name), int | float)]
    bounds = (f"{name}_low", f"{name}_high")
    has_interval = bool(measured) and all(isinstance(line.get(b), int | float) for line in measured for b in bounds)
    return Curve(
        name=name,
        label=label,
        unit=unit,
        x=[int(line["batch"]) for line in measured],
        y=[float(line[name]) for line in measured],
        low=[float(line[bounds[0]]) for line in measured] if has_interval else (),
        high=[float(line[bounds[1]]) for line in measured] if has_interval else (),
    )


def _thinned(metrics: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """At most `MOST_POINTS` lines, evenly spread, with the first and the last: a plot is not wider than that."""
    if len(metrics) <= MOST_POINTS:
        return metrics
    last = len(metrics) - 1
    return [metrics[round(place * last / (MOST_POINTS - 1))] for place in range(MOST_POINTS)]
