"""`agentrl compare A B`: is B better than A, how sure is that, and on which tasks."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import msgspec
import typer

from agentrl.evaluation.comparison import Comparison, Flip, Side, compare
from agentrl.evaluation.statistics import PairedDifference
from agentrl.runs.sides import open_side

LISTED = 5
"Tasks each way that are printed; --json holds all."


def print_comparison(first: Path, second: Path, as_json: bool) -> None:
    before, after = open_side(first), open_side(second)
    found = compare(before, after)
    if as_json:
        typer.echo(msgspec.json.encode(document(before, after, found)).decode())
        return
    for name, words in lines(before, after, found):
        typer.echo(f"{name:<9} {words}")


def document(before: Side, after: Side, found: Comparison) -> dict[str, object]:
    """What --json prints: the comparison's own fields, with what is derived from them."""
    return {
        "a": before.name,
        "b": after.name,
        "suite": before.suite,
        "verdict": found.verdict(),
        "settled": found.settled,
        "more_tasks": found.more_tasks(),
        **asdict(found),
    }


def lines(before: Side, after: Side, found: Comparison) -> Iterator[tuple[str, str]]:
    yield "verdict", found.verdict()
    yield "A", f"{found.before.percent()}  {before.name}"
    yield "B", f"{found.after.percent()}  {after.name}"
    seen = found.difference
    yield "paired", f"{seen.points()} on {seen.interval.tasks} tasks that both scored"
    yield "flips", f"{len(found.won)} tasks went up, {len(found.lost)} went down"
    yield from _flips("up", found.won, before, after)
    yield from _flips("down", found.lost, before, after)
    for name, measure in found.measures.items():
        yield name.split()[-1], f"{_number(measure)} {name} an episode"
    if any(found.faults):
        yield "faults", f"{found.faults[0]} in A and {found.faults[1]} in B, not scored"
    if any(found.only):
        yield "apart", f"{found.only[0]} tasks were scored in A alone and {found.only[1]} in B alone: left out"
    for note in found.notes:
        yield "differs", note


def _flips(name: str, flips: Sequence[Flip], before: Side, after: Side) -> Iterator[tuple[str, str]]:
    for flip in flips[:LISTED]:
        yield name, f"{flip.task}  {flip.before:.2g} -> {flip.after:.2g}{_links(flip, before, after)}"
    if len(flips) > LISTED:
        yield name, f"and {len(flips) - LISTED} more; --json names all"


def _links(flip: Flip, before: Side, after: Side) -> str:
    """The commands that open an episode of each side, where they were kept."""
    told = [
        shlex.join(["agentrl", "view", side.folder, "--episode", episodes[0]])
        for side, episodes in ((before, flip.episodes_before), (after, flip.episodes_after))
        if side.folder and episodes
    ]
    return "".join(f"\n{'':<12}{command}" for command in told)


def _number(measure: PairedDifference) -> str:
    seen = measure.interval
    return f"{seen.value:+.4g} [{seen.low:+.4g}, {seen.high:+.4g}]"
