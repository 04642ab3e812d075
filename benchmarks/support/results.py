"""What a benchmark says at its end: its verdicts in words, and one JSON file with the conditions beside them.

A verdict is never an assertion: a busy machine makes a bad measurement, not a failing one.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from conditions import conditions, load


@dataclass(frozen=True)
class Verdict:
    """One number against its target."""

    what: str
    value: float
    relation: Literal["at least", "at most", "below"]
    target: float
    unit: str = ""

    @property
    def reached(self) -> bool:
        if self.relation == "at least":
            return self.value >= self.target
        return self.value <= self.target if self.relation == "at most" else self.value < self.target

    def __str__(self) -> str:
        words = "reached" if self.reached else "NOT reached"
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.what}: {self.value:.4g}{unit}, target {self.relation} {self.target:g}{unit}: {words}"


def options(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the two options that every benchmark has."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that the script works, measures nothing"
    )
    parser.add_argument("--out", type=Path, help="where to write the result as JSON")
    return parser


def finish(
    chosen: argparse.Namespace, before: dict[str, Any], measured: dict[str, Any], verdicts: Sequence[Verdict]
) -> None:
    """Print the verdicts and write everything to `--out`. `before` are the conditions at the start."""
    after = conditions()
    for verdict in verdicts:
        print(verdict)
    print(f"load {before['load'][0]:g} at the start, {load():g} at the end, on {before['usable_cores']} cores")
    if chosen.quick:
        print("--quick: the sizes are too small for a conclusion")
    if chosen.out is not None:
        told = {
            "quick": chosen.quick,
            "verdicts": [asdict(v) | {"reached": v.reached} for v in verdicts],
            "measured": measured,
            "options": {name: str(v) if isinstance(v, Path) else v for name, v in sorted(vars(chosen).items())},
            # torch may have been loaded in between, so a GPU is seen only afterwards.
            "conditions": before | {"gpu": after["gpu"], "load_at_end": after["load"]},
        }
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps(told, indent=1) + "\n")


def middle(values: Sequence[float]) -> dict[str, Any]:
    """Median, extremes and the values themselves, rounded to what a clock can tell."""
    return {
        "median": round(statistics.median(values), 6),
        "least": round(min(values), 6),
        "most": round(max(values), 6),
        "values": [round(value, 6) for value in values],
    }
