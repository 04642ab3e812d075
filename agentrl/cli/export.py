"""`agentrl export RUN OUT`: weights with a model card, episodes as parquet, successes as fine-tuning data."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import typer

from agentrl import __version__
from agentrl.cli.wanted import Wanted
from agentrl.config import load_config
from agentrl.environment import adapt
from agentrl.errors import AgentRLError, ConfigError, StoreError
from agentrl.evaluation.result import MANIFEST, load_manifest, load_result
from agentrl.export.card import CardFacts, model_card
from agentrl.export.sft import save_sft
from agentrl.export.trajectories import save_trajectories
from agentrl.export.weights import BASE, FORMS
from agentrl.plugins import Host, load_host
from agentrl.replay.rerender import tools_of
from agentrl.runs.folder import RunFolder
from agentrl.sections import Config
from agentrl.store.ledger import LEDGER
from agentrl.store.reader import FolderReader
from agentrl.types import ToolSpec

CARD, EPISODES, EXAMPLES = "README.md", "trajectories.parquet", "sft.jsonl"


def export(source: Path, out: Path, wanted: Wanted, plugins: Sequence[str]) -> None:
    """Everything or nothing: `out` is written aside and renamed."""
    wanted.check()
    source = source.expanduser()
    run, evaluated = RunFolder(source), (source / MANIFEST).is_file()
    if not run.recipe.is_file() and not evaluated:
        raise ConfigError(f"{source} is neither a run nor an evaluation; give the folder of one.")
    if wanted.weights and evaluated:
        raise ConfigError(f"{source} is an evaluation and holds no weights; export those of the run that it measured.")
    config = None if evaluated else load_config(str(run.recipe))
    told: list[str] = []
    with replaced(out, source, wanted.replace) as folder:
        if wanted.weights and config is not None:
            told += _weights(run, config, folder, wanted, load_host([*config.plugins, *plugins]))
        if wanted.trajectories:
            with FolderReader(source) as reader:
                count = save_trajectories(reader, folder / EPISODES)
            told.append(f"{EPISODES}: {count:,} episodes")
        if wanted.sft:
            told += _examples(source, config, folder / EXAMPLES, plugins)
    for line in told:
        typer.echo(f"exported {out}: {line}")


def _weights(run: RunFolder, config: Config, folder: Path, wanted: Wanted, host: Host) -> list[str]:
    FORMS[wanted.weights](run, config, folder)
    facts = CardFacts(
        form=wanted.weights,
        base=BASE if (folder / BASE).is_dir() else "",
        versions=_versions(host, config),
        results=[load_result(path.expanduser()) for path in wanted.results or ()],
    )
    (folder / CARD).write_text(model_card(run, config, facts), encoding="utf-8")
    return [f"{wanted.weights} weights of {run.newest_model.parent.name}, {CARD}"]


def _examples(source: Path, config: Config | None, path: Path, plugins: Sequence[str]) -> list[str]:
    tools, problem = _tools(source, config, plugins)
    with FolderReader(source) as reader:
        found = save_sft(reader, path, tools)
    told = [
        f"{EXAMPLES}: {found.examples:,} successes as messages" + (f"; without tools: {problem}" if problem else "")
    ]
    told += [f"{EXAMPLES}: {count:,} successes left out: {reason}" for reason, count in found.left_out.items()]
    return told


def _tools(source: Path, config: Config | None, plugins: Sequence[str]) -> tuple[Sequence[ToolSpec], str]:
    """The environment's tools, or why they are not known: episodes are exported without."""
    try:
        if config is not None:
            host, name, options = (
                load_host([*config.plugins, *plugins]),
                config.environment.name,
                config.environment.options,
            )
            split = "train"
        else:
            manifest = load_manifest(source)
            host, name, options, split = load_host(plugins), manifest.environment, dict(manifest.options), "test"
        environment = adapt(host.create("environments", name, options, where="[environment]"))
        task = next(iter(islice(environment.tasks(split), 1)), None)
        return (asyncio.run(tools_of(environment, task)), "") if task is not None else ((), f"no task in {split!r}")
    except AgentRLError as error:
        return (), str(error)


def _versions(host: Host, config: Config) -> dict[str, str]:
    entries = [entry for entry in host.entries("environments") if entry.name == config.environment.name]
    return {"agentrl-framework": __version__, **{entry.distribution: entry.version for entry in entries}}


@contextmanager
def replaced(out: Path, source: Path, replace: bool) -> Iterator[Path]:
    """A folder that takes the name of `out` at the end; what lies there is replaced only where `replace` says so.

    Raises `StoreError` where it may not be, and for what the disk does.
    """
    out = out.expanduser()
    if out.exists() and not replace and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(f"{out} is there already; name another folder, or say --replace.")
    whole = out.resolve()
    if (out / LEDGER).exists() or any(path.resolve().is_relative_to(whole) for path in (source, Path.cwd())):
        raise StoreError(f"{out} holds a run, an evaluation or the current folder, and is not replaced; name another.")
    folder = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder
        if out.is_dir():
            shutil.rmtree(out)
        folder.rename(out)
    except OSError as error:
        raise StoreError(f"{out} cannot be written: {error}. Nothing is there now that was not before.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
