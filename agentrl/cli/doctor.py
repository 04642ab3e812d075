"""`agentrl doctor`: what works here and what does not, or what a run is doing; as a table or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from agentrl.doctor.probe import Line

COLORS = {"ok": "green", "missing": "yellow", "broken": "red"}


def doctor(run: Path | None, as_json: bool, plugins: Sequence[str]) -> None:
    """Raises `typer.Exit(1)` where something required is broken, or where the run is stuck or was killed."""
    if run is None:
        _machine(as_json, plugins)
    else:
        _run(run, as_json)


def _machine(as_json: bool, plugins: Sequence[str]) -> None:
    from agentrl.doctor.installed import installed_probes
    from agentrl.doctor.machine import machine_probes
    from agentrl.doctor.probe import examine, sound
    from agentrl.doctor.programs import program_probes
    from agentrl.plugins import load_host

    lines = examine([*machine_probes(), *program_probes(), *installed_probes(load_host(plugins))])
    if as_json:
        print_json({"ok": sound(lines), "checks": lines})
    else:
        for text in table(lines):
            typer.echo(text)
    if not sound(lines):
        raise typer.Exit(1)


def _run(folder: Path, as_json: bool) -> None:
    from agentrl.doctor.runs import look_at, report

    state = look_at(folder)
    if as_json:
        print_json({"ok": state.state not in ("stuck", "killed"), "run": state})
    else:
        for text in report(state):
            typer.echo(text)
    if state.state in ("stuck", "killed"):
        raise typer.Exit(1)


def table(lines: Sequence[Line]) -> list[str]:
    """Check, state, what was found; below it what is lost without, and what brings it."""
    wide = max((len(line.check) for line in lines), default=0)
    shown = []
    for line in lines:
        state = typer.style(f"{line.state:<7}", fg=COLORS[line.state])
        shown.append(f"{line.check:<{wide}}  {state}  {line.detail}")
        lost = f"lost: {line.lost} · " if line.lost else ""
        if line.fix:
            shown.append(f"{'':<{wide}}           {lost}fix: {line.fix}")
    counts = {state: sum(line.state == state for line in lines) for state in COLORS}
    needed = [line.check for line in lines if line.required and line.state == "broken"]
    verdict = f"; required and broken: {', '.join(needed)}" if needed else ""
    shown.append(f"{counts['ok']} ok, {counts['missing']} missing, {counts['broken']} broken{verdict}")
    return shown


def print_json(value: object) -> None:
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=1).decode())
