"""Tasks by runs: who succeeded where.

The tasks on which the runs disagree come first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentrl.view.archive import Archive, primary
from agentrl.view.overview import held_out
from agentrl.view.shapes import Grid, GridRow

MOST_ROWS = 1000
MOST_COLUMNS = 8
"Evaluations of one run."
MOST_EPISODES = 16
"Of one cell."


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    shares: Mapping[str, float]
    archive: Archive | None = None
    "Whose ledger holds the episodes; None where they were not kept."


def grid(archives: Sequence[Archive]) -> Grid:
    """A column a folder; one run by itself has a column for each of its evaluations on held-out tasks."""
    columns = [_column(archive) for archive in archives]
    if len(archives) == 1:
        columns = _measured(archives[0]) or columns
    tasks = list(dict.fromkeys(task for column in columns for task in column.shares))
    shares = {task: [column.shares.get(task) for column in columns] for task in tasks}
    # `sorted` keeps the order of equals, which is that of the tasks.
    first = sorted(tasks, key=lambda task: -_spread(shares[task]))[:MOST_ROWS]
    episodes = [c.archive.attempts(first, MOST_EPISODES) if c.archive else {} for c in columns]
    rows = [
        GridRow(task, shares[task], [found.get(task, ()) for found in episodes], _spread(shares[task]) > 0)
        for task in first
    ]
    return Grid([column.name for column in columns], rows, len(tasks) - len(rows))


def _column(archive: Archive) -> _Column:
    """A run's newest evaluation where it has one: its training tasks say nothing about other runs."""
    if archive.is_run and (measured := held_out(archive)):
        return _Column(archive.name, {task: sum(tries) / len(tries) for task, tries in measured.items()})
    return _Column(archive.name, archive.shares(), archive)


def _measured(archive: Archive) -> list[_Column]:
    if not archive.is_run:
        return []
    found = []
    measured = primary(archive.evaluations(), archive.recipe)
    last = len(measured) - 1
    # The first, the last and some between them: more columns than that are a curve.
    places = sorted({round(place * last / (MOST_COLUMNS - 1)) for place in range(MOST_COLUMNS)}) if measured else []
    for evaluation in (measured[place] for place in places):
        when = "before" if evaluation.update == 0 else f"update {evaluation.update}"
        name = f"{when}, {'sampled' if evaluation.temperature else 'greedy'}"
        found.append(_Column(name, {task: sum(t) / len(t) for task, t in evaluation.successes().items()}))
    return found


def _spread(shares: Sequence[float | None]) -> float:
    known = [share for share in shares if share is not None]
    return max(known) - min(known) if known else 0.0
