"""Writes the tables of `docs/learning.md` and draws its plots, from the cells in `benchmarks/results/learning`.

    PYTHONPATH=benchmarks python -m learning.page

A table stands between `<!-- table: FILE / SETTING -->` and `<!-- end -->`; the words around it are written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from learning.cells import RESULTS, Result, read
from learning.intervals import Estimate, estimate, paired

PAGE = Path(__file__).parents[2] / "docs" / "learning.md"
PERCENT = 100.0
BySeed = dict[int, float]


@dataclass(frozen=True, slots=True)
class Column:
    """A number of every cell, shown as a mean over seeds or as a difference from a control."""

    title: str
    of: Callable[[Mapping[str, Any]], float]
    factor: float = 1.0
    minus: str = ""
    "The control's method; empty shows the mean itself."

    def show(self, by_method: Mapping[str, Sequence[Result]], method: str) -> str:
        own = self.by_seed(by_method[method])
        if not self.minus:
            return estimate(list(own.values())).show(self.factor) if own else "-"
        found = self.gap(by_method, method)
        return found.show(self.factor, signed=True) if found else "-"

    def gap(self, by_method: Mapping[str, Sequence[Result]], method: str) -> Estimate | None:
        """None for the control itself, and where there is no seed to compare."""
        if method == self.minus:
            return None
        return paired(self.by_seed(by_method.get(self.minus, ())), self.by_seed(by_method[method]))

    def by_seed(self, results: Sequence[Result]) -> BySeed:
        """Without cells that have no such number, as the untrained start has no curve."""
        found = {}
        for result in results:
            try:
                found[result.cell.seed] = self.of(result.measured)
            except KeyError:
                continue
        return found


def curve_mean(told: Mapping[str, Any]) -> float:
    return mean(told["success"])


def last(name: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda told: float(told[name][-1])


def one(name: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda told: float(told[name])


GRPO, DISCOUNTED, STEPS = "grpo", "grpo, return discounted", "step_return"
RANDOM = "random branching, equal tokens"
COLUMNS: dict[str, tuple[Column, ...]] = {
    "tabular": (
        Column("success over the run, %", curve_mean, PERCENT),
        Column("minus grpo", curve_mean, PERCENT, GRPO),
        Column("minus discounted grpo", curve_mean, PERCENT, DISCOUNTED),
        Column("minus step_return", curve_mean, PERCENT, STEPS),
        Column("last steps an episode", last("steps")),
        Column("minus discounted grpo", last("steps"), 1.0, DISCOUNTED),
        Column("minus step_return", last("steps"), 1.0, STEPS),
    ),
    "transformer": (
        Column("success over the run, %", curve_mean, PERCENT),
        Column("minus grpo", curve_mean, PERCENT, GRPO),
        Column("minus discounted grpo", curve_mean, PERCENT, DISCOUNTED),
        Column("held out, sampled, %", one("held_out"), PERCENT),
        Column("minus grpo", one("held_out"), PERCENT, GRPO),
        Column("held out, greedy, %", one("greedy"), PERCENT),
        Column("steps to win", one("held_out_steps_to_win")),
    ),
    "teachers": (
        Column("held out, sampled, %", one("held_out"), PERCENT),
        Column("minus grpo", one("held_out"), PERCENT, GRPO),
        Column("minus opd", one("held_out"), PERCENT, "opd"),
        Column("held out, greedy, %", one("greedy"), PERCENT),
        Column("steps to win", one("held_out_steps_to_win")),
    ),
    "strategies": (
        Column("success over the run, %", curve_mean, PERCENT),
        Column("minus independent", curve_mean, PERCENT, "independent"),
        Column("minus random branching, equal tokens", curve_mean, PERCENT, RANDOM),
        Column("last success, %", last("success"), PERCENT),
        Column("tokens a group", lambda told: mean(told["tokens"])),
        Column("trajectories a group", lambda told: mean(told["trajectories"])),
    ),
}


def grouped(results: Sequence[Result]) -> dict[str, dict[str, list[Result]]]:
    """Results by setting and method, in the order of the file."""
    found: dict[str, dict[str, list[Result]]] = {}
    for result in results:
        found.setdefault(result.cell.setting, {}).setdefault(result.cell.method, []).append(result)
    return found


def table(columns: Sequence[Column], by_method: Mapping[str, Sequence[Result]]) -> str:
    seeds = [len(results) for results in by_method.values()]
    count = f"{min(seeds)} to {max(seeds)}" if min(seeds) < max(seeds) else f"{max(seeds)}"
    lines = [
        f"| method ({count} seeds) | {' | '.join(column.title for column in columns)} |",
        f"|---|{'---|' * len(columns)}",
    ]
    for method in by_method:
        lines.append(f"| {method} | {' | '.join(column.show(by_method, method) for column in columns)} |")
    return "\n".join(lines)


def written(text: str, folder: Path = RESULTS) -> str:
    """The page with every table made anew. Raises `KeyError` for one that has no cells."""

    def make(found: re.Match[str]) -> str:
        name, setting = found["name"], found["setting"]
        made = table(COLUMNS[name], grouped(read(folder / f"{name}.jsonl"))[setting])
        return f"<!-- table: {name} / {setting} -->\n{made}\n<!-- end -->"

    return re.sub(r"<!-- table: (?P<name>\w+) / (?P<setting>[^\n]+?) -->\n.*?<!-- end -->", make, text, flags=re.DOTALL)


def draw_gaps(name: str, settings: Sequence[str], columns: Sequence[tuple[str, Column]]) -> None:
    """The difference of every method from a column's control, with its interval; a panel by setting and number."""
    results = grouped(read(RESULTS / f"{name}.jsonl"))
    methods = list(results[settings[0]])
    figure = _figure(12, 0.27 * len(methods) + 1.2)
    axes = figure.subplots(1, len(settings) * len(columns), sharey=True)
    panels = [(setting, title, column) for setting in settings for title, column in columns]
    for axis, (setting, title, column) in zip(axes, panels, strict=True):
        axis.axvline(0, color="#c05a1f", linewidth=0.8)
        for place, method in enumerate(methods):
            found = column.gap(results[setting], method)
            if found is not None:
                value, half = column.factor * found.value, column.factor * found.half
                axis.errorbar(value, place, xerr=half, fmt="o", markersize=4, capsize=2, color="#1f5fa8")
        axis.set_yticks(range(len(methods)), methods, fontsize=8)
        axis.set_title(f"{setting}: {title}", fontsize=9)
        axis.grid(axis="x", alpha=0.3)
    axes[0].invert_yaxis()
    figure.savefig(RESULTS / f"{name}.png", dpi=80)


def draw_curves(name: str, block: int) -> None:
    """Success by batch with the interval over seeds, a panel by setting."""
    results = grouped(read(RESULTS / f"{name}.jsonl"))
    figure = _figure(11, 4.2)
    axes = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for axis, (setting, by_method) in zip(axes, results.items(), strict=True):
        trained = [method for method, found in by_method.items() if "success" in found[0].measured]
        for color, method in zip(_COLORS, trained, strict=False):
            curves: list[Any] = [result.measured["success"] for result in by_method[method]]
            found = [estimate([PERCENT * value for value in values]) for values in zip(*curves, strict=True)]
            at = [block * (place + 0.5) for place in range(len(found))]
            axis.plot(at, [e.value for e in found], color=color, label=method)
            low, high = ([e.value + sign * e.half for e in found] for sign in (-1, 1))
            axis.fill_between(at, low, high, color=color, alpha=0.12, linewidth=0)
        axis.set_title(f"{setting}: success of the batches, %", fontsize=10)
        axis.set_xlabel("batch of 64 episodes")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    axes[0].set_ylim(0, 100)
    figure.savefig(RESULTS / f"{name}.png", dpi=80)


_COLORS = ("#8a8a8a", "#c05a1f", "#3b8f4d", "#1f5fa8", "#7d4fa8", "#b8912b", "#2f9c9c")


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def main() -> None:
    PAGE.write_text(written(PAGE.read_text()))
    success, steps = COLUMNS["tabular"][2], COLUMNS["tabular"][5]
    draw_gaps("tabular", ("tight", "loose"), (("success, points", success), ("steps an episode at the end", steps)))
    for name, block in (("transformer", 4), ("strategies", 5)):
        if (RESULTS / f"{name}.jsonl").exists():
            draw_curves(name, block)


if __name__ == "__main__":
    main()
