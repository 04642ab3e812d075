"""One (setting, method, seed) is a cell: one run, and one line of a JSON-lines file when it is over.

A cell that has its line is not run again, so a benchmark may be stopped at any moment; the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from conditions import conditions, load

RESULTS = Path(__file__).parent.parent / "results" / "learning"
Measured = Mapping[str, float | list[float]]
"Numbers by name; a list is a curve over the run."


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    seed: int
    setting: str
    method: str

    @property
    def name(self) -> str:
        return f"{self.setting} / {self.method} / seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Result:
    """A line of the file."""

    cell: Cell
    measured: Measured
    seconds: float
    cpu_seconds: float
    commit: str
    "The last one that changed the library or the environments; `+` where files differ from it."
    versions: Mapping[str, str]


def grid(settings: Mapping[str, Sequence[str]], seeds: int) -> list[Cell]:
    """Methods by setting; seeds outermost, so that a benchmark that is stopped early has compared like with like."""
    return [
        Cell(seed, setting, method)
        for seed, (setting, methods) in product(range(seeds), settings.items())
        for method in methods
    ]


def read(path: Path) -> list[Result]:
    """The results so far; a line that a kill cut short is no result."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        try:
            told = json.loads(line)
        except json.JSONDecodeError:
            continue
        found.append(Result(**{**told, "cell": Cell(**told["cell"])}))
    return found


def options(doc: str | None, *, name: str, seeds: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.jsonl", help="cells go here, a line each")
    parser.add_argument("--seeds", type=int, default=seeds, help="how many seeds of every setting and method")
    parser.add_argument("--only", default="", help="only cells with this text in 'setting / method / seed N'")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no cell after so many seconds")
    return parser


def fill(cells: Iterable[Cell], run: Callable[[Cell], Measured], chosen: argparse.Namespace) -> int:
    """Run the cells that have no line yet and append them one by one; how many are left."""
    done = {result.cell for result in read(chosen.out)}
    missing = [cell for cell in cells if cell not in done and chosen.only in cell.name]
    where, commit = conditions(), library_commit()
    began = time.monotonic()
    for number, cell in enumerate(missing):
        if time.monotonic() - began > chosen.seconds:
            print(f"{len(missing) - number} cells are left; the same command goes on", flush=True)
            return len(missing) - number
        start, cpu = time.monotonic(), time.process_time()
        measured = run(cell)
        result = Result(
            cell,
            measured,
            round(time.monotonic() - start, 2),
            round(time.process_time() - cpu, 2),
            commit,
            {"python": where["python"], **where["packages"]},
        )
        append(chosen.out, result)
        print(f"{number + 1}/{len(missing)} {cell.name}: {result.seconds:.1f} s, load {load():g}", flush=True)
    return 0


def append(path: Path, result: Result) -> None:
    """On a line of its own, also behind one that was cut short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        file.write(("\n" if torn else "") + json.dumps(asdict(result)) + "\n")


def library_commit() -> str:
    """Unlike HEAD it stays what it is while results are added. Empty outside of git."""
    parts = ("--", "agentrl", "environments")
    try:
        last = _git("log", "-1", "--format=%h", *parts)
        return last + ("+" if _git("status", "--porcelain", *parts) else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(*words: str) -> str:
    root = Path(__file__).parents[2]
    return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def blocks(values: Sequence[Any], size: int) -> list[float]:
    """Means of `size` neighbours, rounded: a curve short enough for a line."""
    return [
        round(sum(values[start : start + size]) / len(values[start : start + size]), 4)
        for start in range(0, len(values), size)
    ]
