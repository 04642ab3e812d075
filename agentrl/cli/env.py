"""`agentrl new env`, `agentrl env check` and `install`, `agentrl play`: from words of the command line to environments.

Options of an environment are `key=value`, each value written as in a recipe; a bare word is text.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from agentrl.errors import ConfigError


def new(name: str, folder: Path) -> None:
    from agentrl.cli.scaffold import new_environment

    target = new_environment(name, folder)
    typer.echo(f"wrote {target}: {', '.join(sorted(path.name for path in target.iterdir()))}")
    typer.echo(f"next: agentrl env check {name} --plugin {target / name}.py")
    typer.echo(f"to install it as a plugin: pip install --no-deps -e {target}")


def check(
    name: str, options: Sequence[str] = (), plugins: Sequence[str] = (), *, tasks: int = 8, seed: int = 0
) -> None:
    """Prints the report. Raises `typer.Exit(1)` where a check fails."""
    from agentrl.testing import check_environment

    report = check_environment(environment_factory(name, options, plugins), tasks=tasks, seed=seed)
    typer.echo(str(report))
    if not report.ok:
        raise typer.Exit(1)


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
    """A callable that makes the environment `name` anew. Raises `ConfigError` for an unknown name or option."""
    from agentrl.options import check_options, parse_options
    from agentrl.plugins import load_host

    host = load_host(plugins)
    values = parse_options(options)
    factory = host.factory("environments", name)
    checked = check_options(factory, values, where=f"environment {name!r}")
    if checked.problems:
        raise ConfigError("\n".join(checked.problems))
    # A partial, not a lambda: the check makes the environment in another process too.
    return functools.partial(factory, **checked.values) if values else factory
