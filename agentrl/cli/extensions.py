"""Commands that plugins bring: entry points of the group `agentrl.commands`, each a function or a `typer.Typer`.

They are named without being imported, so that `agentrl --help` stays quick; one is imported when it is run.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import typer

from agentrl import discovery
from agentrl.errors import MissingDependencyError, PluginError

GROUP = "agentrl.commands"


def owners() -> dict[str, list[str]]:
    """The distributions that bring a command, by its name: more than one is a clash."""
    found: dict[str, list[str]] = {}
    for point in discovery.points(GROUP):
        found.setdefault(point.name, []).append(discovery.origin_of(point).distribution)
    return dict(sorted(found.items()))


def load(name: str) -> Any:
    """The command as click runs it; None where no plugin brings it.

    Raises `MissingDependencyError` where it needs a package that is not installed, `PluginError` where it is broken or
    there are two.
    """
    found = [point for point in discovery.points(GROUP) if point.name == name]
    if not found:
        return None
    if len(found) > 1:
        brought = " and ".join(discovery.origin_of(point).distribution for point in found)
        raise PluginError(f"the command {name!r} is brought by {brought}. Uninstall or rename one.")
    return _ready(found[0], _imported(found[0]))


def _imported(point: EntryPoint) -> Any:
    origin = discovery.origin_of(point)
    try:
        return point.load()
    except (Exception, SystemExit) as error:
        missing = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
        if missing and discovery.missing_modules((missing,)) and missing != point.module.partition(".")[0]:
            extras = point.dist.metadata.get_all("Provides-Extra") if point.dist else None
            command = origin.install_command(",".join(extras or ()), (missing,))
            raise MissingDependencyError(
                f"command {point.name!r} needs {missing}, which is not installed. Run: {command}"
            ) from error
        raise PluginError(
            f"the command {point.name!r} of {origin.distribution} cannot be imported: {discovery.reason(error)}"
        ) from error


def _ready(point: EntryPoint, command: Any) -> Any:
    name = point.name
    try:
        if not isinstance(command, typer.Typer):
            only = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
            only.command(name)(command)
            command = only
        return typer.main.get_command(command)
    except Exception as error:
        raise PluginError(
            f"the command {name!r} of {discovery.origin_of(point).distribution} cannot be read: "
            f"{type(error).__name__}: {error}. "
            "A command is a function with parameters annotated as typer reads them, or a typer.Typer."
        ) from error
