"""`agentrl list`: what plugins registered, as an aligned table that also reads well in a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import typer

from agentrl.errors import PluginError, did_you_mean
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


def plugin_command(name: str) -> Any:
    """A command that a plugin brings, ready for typer; None where no plugin does.

    Raises `PluginError` for one that cannot be read, `MissingDependencyError` for one that needs another package.
    """
    host = load_host()
    entry = next((entry for entry in host.entries("commands") if entry.name == name), None)
    if entry is None:
        return None
    command: Any = host.factory("commands", name)
    try:
        if not isinstance(command, typer.Typer):
            only = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
            only.command(name)(command)
            command = only
        return typer.main.get_command(command)
    except Exception as error:
        raise PluginError(
            f"the command {name!r} of {entry.distribution} cannot be read: {type(error).__name__}: {error}. "
            "A command is a function with parameters annotated as typer reads them, or a typer.Typer."
        ) from error


def not_a_command(name: str, own: Iterable[str]) -> str:
    """What to say of a word that is neither a command in the box (`own`) nor one of a plugin."""
    host = load_host()
    near = did_you_mean(name, [*own, *(entry.name for entry in host.entries("commands"))])
    broken = [entry.name for entry in host.entries("plugins") if entry.state == "broken"]
    hint = f" Broken plugins: {', '.join(broken)}; `agentrl list plugins` says why." if broken else ""
    return f"No such command {name!r}.{near}{hint}"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
