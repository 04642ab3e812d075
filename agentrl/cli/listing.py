"""`agentrl list`: what plugins registered, as an aligned table that also reads well in a pipe."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from agentrl.hooks import KINDS
from agentrl.plugins import Entry, load_host

ALIASES = {
    "envs": "environments",
    "rewards": "reward_models",
    "credit": "credit_rules",
    "contexts": "context_policies",
    "rollouts": "strategies",
}
COLORS = {"ok": "green", "missing": "yellow", "broken": "red"}
COLUMNS = ("kind", "name", "distribution", "version", "state")


def print_entries(kind: str | None, plugins: Sequence[str]) -> None:
    """The table of one kind or of all, with what is missing and the command that brings it below each line."""
    host = load_host(plugins)
    chosen = None if kind is None else kind_called(kind)
    entries = host.entries(chosen)
    if not entries:
        typer.echo(f"no {chosen} are registered: {KINDS.get(chosen or '', 'no plugin was found')}.")
        return
    for line in table(entries):
        typer.echo(line)
    broken = [entry for entry in host.entries("plugins") if entry.state == "broken"]
    if broken and chosen not in (None, "plugins"):
        typer.echo(f"\n{len(broken)} broken: {', '.join(e.name for e in broken)}. `agentrl list plugins` says why.")


def table(entries: Sequence[Entry]) -> list[str]:
    rows = [(e.kind, e.name, e.distribution, e.version, e.state) for e in entries]
    widths = [max(len(row[i]) for row in [COLUMNS, *rows]) for i in range(len(COLUMNS))]
    lines = [_aligned(COLUMNS, widths)]
    for entry, row in zip(entries, rows, strict=True):
        text = _aligned(row, widths)
        colored = text[: -widths[-1]] + typer.style(text[-widths[-1] :], fg=COLORS[entry.state])
        lines.append(f"{colored}  {entry.detail}".rstrip())
        if entry.install:
            lines.append(f"{' ' * (sum(widths) + 2 * len(widths))}{entry.install}")
    return lines


def kind_called(word: str) -> str:
    """`envs`, `environment` and `environments` are one kind; an unknown word is left for the host to refuse."""
    plain = word.lower().replace("-", "_")
    candidates = (plain, ALIASES.get(plain, plain), f"{plain}s", f"{plain}es", f"{plain.removesuffix('y')}ies")
    return next((c for c in candidates if c in KINDS or c == "plugins"), word)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
