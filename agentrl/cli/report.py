"""`agentrl report RUN|EVAL -o FOLDER`: the page that opens from the disk, and the plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from agentrl.cli.export import replaced
from agentrl.config import load_config
from agentrl.errors import ConfigError
from agentrl.evaluation.result import MANIFEST, load_result
from agentrl.export.plots import evaluation_plots, run_plots
from agentrl.runs.folder import RunFolder
from agentrl.view.book import save_book

PAGE = "index.html"


def report(source: Path, out: Path, others: Sequence[Path], replace: bool) -> None:
    """Everything or nothing: `out` is written aside and renamed."""
    source = source.expanduser()
    run = RunFolder(source)
    if not run.recipe.is_file() and not (source / MANIFEST).is_file():
        raise ConfigError(f"{source} is neither a run nor an evaluation; give the folder of one.")
    with replaced(out, source, replace) as folder:
        if run.recipe.is_file():
            paths = run_plots(run, load_config(str(run.recipe)), folder)
        else:
            paths = evaluation_plots(load_result(source), folder)
        book = save_book(source, folder / PAGE, [other.expanduser() for other in others])
        sizes = {path.name: path.stat().st_size / 1e6 for path in (folder / PAGE, *paths)}
    left = f", {book.left_out + book.unlisted:,} episodes left out" if book.left_out + book.unlisted else ""
    for name, size in sizes.items():
        typer.echo(f"reported {out / name}  ({size:.1f} MB{left if name == PAGE else ''})")
