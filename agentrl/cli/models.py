"""`agentrl models`: the models that can be had by name, and fetching one."""

from __future__ import annotations

import typer

from agentrl import models

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
