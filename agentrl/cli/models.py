"""`agentrl models`: the models that can be had by name, fetching one, and merging trained ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from agentrl import models
from agentrl.errors import ConfigError
from agentrl.runs.folder import RunFolder

if TYPE_CHECKING:
    from agentrl.merging import Rule

MEGABYTE = 1_000_000


def print_models() -> None:
    folder = models.models_folder()
    typer.echo(f"models folder: {folder}")
    for name, source in sorted(models.KNOWN.items()):
        here = (folder / name).is_dir()
        state = "here" if here else f"not here; agentrl models get {name}"
        size = f"{source.folder_bytes / MEGABYTE:.0f} MB on disk, {source.download_bytes / MEGABYTE:.0f} MB to fetch"
        typer.echo(f"  {name}  {source.license}, context {source.context}, {size}  [{state}]")
    typer.echo('  tiny          made from scratch by a recipe: [model] name = "tiny"')


def get_model(name: str) -> None:
    source = models.KNOWN.get(name)
    if source is not None and not (models.models_folder() / name).is_dir():
        typer.echo(f"fetching {name}: {source.download_bytes / MEGABYTE:.0f} MB, then converting it once ...")
    typer.echo(f"{name} is in {models.get(name)}")


def merge_models(out: Path, base: str, trained: Sequence[str], rule: Rule) -> None:
    from agentrl.merging import merge

    folders = [_weights(name) for name in trained]
    for share in merge(out, models.resolve(base), folders, rule):
        kept = f", its unique ones times {share.scale:.3g}" if share.scale != 1 else ""
        typer.echo(f"{share.model}: changed {share.changed:,} weights, {share.shared:,} of them shared{kept}")
    typer.echo(f"merged {len(folders)} models by {rule.name} into {out}")


def make_rule(name: str, *, threshold: float, density: float) -> Rule:
    """By the name of the command line. Raises `ConfigError` for one that is not known."""
    from agentrl.merging import Average, Reinforced, Ties

    rules: dict[str, Rule] = {
        "ram": Reinforced(threshold),
        "ram+": Reinforced(threshold, rescale=0.2, name="ram+"),
        "average": Average(),
        "ties": Ties(density),
    }
    if name not in rules:
        raise ConfigError(f"no rule is called {name!r}; models are merged by {', '.join(rules)}.")
    return rules[name]


def _weights(name: str) -> Path:
    """The folder of a model, or of the newest weights of a run."""
    run = RunFolder(Path(name).expanduser())
    return models.resolve(name) if not run.recipe.is_file() else run.newest_model
