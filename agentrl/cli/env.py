"""`agentrl new env`, `agentrl env check` and `install`, `agentrl play`: from words of the command line to environments.

Options of an environment are `key=value`, each value written as in a recipe; a bare word is text.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from agentrl.errors import ConfigError

if TYPE_CHECKING:
    from agentrl.testing import CheckResult

_SECONDS = 10.0
"That each check of an environment may play for, where no number of tasks is asked for."
_CLEAR = "\r\x1b[K"


def new(name: str, folder: Path) -> None:
    from agentrl.cli.scaffold import new_environment

    target = new_environment(name, folder)
    typer.echo(f"wrote {target}: {', '.join(sorted(path.name for path in target.iterdir()))}")
    typer.echo(f"next: agentrl env check {name} --plugin {target / name}.py")
    typer.echo(f"to install it as a plugin: pip install --no-deps -e {target}")


def check(
    name: str, options: Sequence[str] = (), plugins: Sequence[str] = (), *, tasks: int | None = None, seed: int = 0
) -> None:
    """Prints each result when it is there. Raises `typer.Exit(1)` where a check fails.

    Without a number of tasks it is 8, or fewer where the world is slow.
    """
    from agentrl.testing import check_environment

    factory = environment_factory(name, options, plugins)
    told = _Told()
    if tasks is None:
        report = check_environment(factory, seed=seed, seconds=_SECONDS, progress=told)
    else:
        report = check_environment(factory, tasks=tasks, seed=seed, progress=told)
    typer.echo(report.summary)
    if report.left_out:
        typer.echo("--tasks 8 plays all of it.")
    if not report.ok:
        raise typer.Exit(1)


class _Told:
    """Results as they come, and on a terminal what is being played."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()

    def playing(self, check: str, done: int, of: int) -> None:
        if self._live:
            typer.echo(f"{_CLEAR}{check} ...{f' {done + 1} of {of}' if of else ''}", nl=False, err=True)

    def found(self, result: CheckResult) -> None:
        if self._live:
            typer.echo(_CLEAR, nl=False, err=True)
        typer.echo(str(result))


def install(name: str, plugins: Sequence[str] = ()) -> None:
    from agentrl.plugins import load_host
    from agentrl.venvs import install as install_venv

    folder = install_venv(load_host(plugins).own_venv(name), typer.echo)
    typer.echo(f"{name} is ready in {folder}")
    typer.echo(f"next: agentrl env check {name}")


def play(
    name: str,
    options: Sequence[str] = (),
    plugins: Sequence[str] = (),
    *,
    split: str = "train",
    task: str | None = None,
    seed: int | None = None,
) -> None:
    """One episode with a person (or a pipe) as the model."""
    from agentrl.cli.play import play_environment

    environment = environment_factory(name, options, plugins)()
    play_environment(environment, sys.stdin, sys.stdout, split=split, task_id=task, seed=seed)


def environment_factory(name: str, options: Sequence[str], plugins: Sequence[str]) -> Callable[[], Any]:
    """A callable that makes the environment `name` anew. Raises `ConfigError` for an unknown name or option.

    So does the callable, for what the environment itself says of its options.
    """
    from agentrl.options import build, check_options, needed, parse_options
    from agentrl.plugins import load_host

    host = load_host(plugins)
    values = parse_options(options)
    factory = host.factory("environments", name)
    where = f"environment {name!r}"
    checked = check_options(factory, values, where=where)
    if checked.problems:
        # What a recipe writes in its section is written behind the name here.
        lacking = [key for key in needed(factory) if key not in values]
        how = f"\nOptions stand behind the name: {name} {' '.join(f'{key}=...' for key in lacking)}" if lacking else ""
        raise ConfigError("\n".join(checked.problems) + how)
    # A partial, not a lambda: the check makes the environment in another process too.
    return functools.partial(build, factory, values, where=where)
