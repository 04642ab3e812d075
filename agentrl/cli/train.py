"""`agentrl train` and `sft`: what a person sees of a run from its first line to its last."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agentrl.cli.panel import open_progress
from agentrl.cli.supervised import run_supervised
from agentrl.config import load_config
from agentrl.errors import MissingDependencyError
from agentrl.evaluation.harness import Evaluation
from agentrl.evaluation.statistics import paired_difference
from agentrl.plugins import load_host
from agentrl.runs.blueprint import Blueprint, Screen
from agentrl.runs.curve import save_curve
from agentrl.runs.folder import RunFolder
from agentrl.sections import Config
from agentrl.training.metrics import read_metrics


def train(recipe: str, overrides: Sequence[str], dry_run: bool, folder: Path | None, plugins: Sequence[str]) -> None:
    """Train by a recipe; the same command continues a run that was killed."""
    with _blueprint(recipe, overrides, folder, plugins) as blueprint:
        if dry_run:
            from agentrl.runs.forecast import forecast

            blueprint.screen.note(forecast(blueprint))
        else:
            run_supervised(_train(blueprint))


def sft(recipe: str, overrides: Sequence[str], folder: Path | None, plugins: Sequence[str]) -> None:
    """The warm start of a recipe by itself."""
    from agentrl.runs.policy import warm_up

    with _blueprint(recipe, overrides, folder, plugins) as blueprint:
        blueprint.screen.note(f"saved    {run_supervised(warm_up(blueprint))}")


async def _train(blueprint: Blueprint) -> None:
    from agentrl.runs.assembly import open_run
    from agentrl.training.loop import train as train_loop

    screen, folder = blueprint.screen, blueprint.folder
    try:
        async with open_run(blueprint) as live:
            done, wanted = live.run.batch, live.run.batches
            if done >= wanted:
                screen.note(f"complete {folder.path} has its {done} batches; training.batches=N goes on from there")
            elif live.resumed:
                screen.note(f"resume   {folder.path} goes on at batch {done} of {wanted}")
            screen.note(_introduction(blueprint.config, folder))
            # The weights of the start are gone once a batch is trained: then only what was measured counts.
            before = live.measure.known(0) if done else await live.measure(await live.run.publish())
            _tell(screen, "before", before)
            await train_loop(live.run)
            after = await live.measure(await live.run.publish())
            _tell(screen, "after", after)
            _compare(screen, before, after)
            for account in live.rewards.accounts():
                screen.note(f"judged   {account}")
            _save_curve(blueprint.config, folder, screen)
    except asyncio.CancelledError:
        screen.note(f"stopped  everything is saved in {folder.path}; the same command goes on from there")
        raise


@contextmanager
def _blueprint(
    recipe: str, overrides: Sequence[str], folder: Path | None, plugins: Sequence[str]
) -> Iterator[Blueprint]:
    """The recipe with its plugins, its folder and a screen that is closed at the end."""
    config = load_config(recipe, overrides)
    host = load_host([*config.plugins, *plugins])
    screen = open_progress(config.name)
    try:
        yield Blueprint(config, host, RunFolder(folder or Path("runs") / config.name), screen)
    finally:
        screen.close()


def _introduction(config: Config, folder: RunFolder) -> str:
    rollout, training = config.rollout, config.training
    model = config.model.path or f"{config.model.name} (from scratch)"
    return (
        f"task     {config.environment.name} · model {model} · {config.method.name} · "
        f"{training.batches} batches of {rollout.tasks_per_batch} tasks x {rollout.group_size} · {folder.path}"
    )


def _tell(screen: Screen, when: str, evaluations: Sequence[Evaluation]) -> None:
    for evaluation in evaluations:
        how = "greedy" if evaluation.temperature == 0 else f"sampled T={evaluation.temperature:g}"
        if not evaluation.successes():
            first = next((attempt.error for attempt in evaluation.attempts), "")
            screen.note(f"{when:<8} {how:<13} nothing to score: all {evaluation.faults()} attempts failed. {first}")
            continue
        validity = evaluation.call_validity()
        told = [
            f"success {evaluation.success().percent()}",
            f"n={len(evaluation.successes())} held-out tasks",
            f"{evaluation.mean_steps():.1f} steps",
        ]
        if validity is not None:
            told.append(f"valid calls {100 * validity:.0f}%")
        if evaluation.faults():
            told.append(f"{evaluation.faults()} faults, not scored")
        screen.note(f"{when:<8} {how:<13} {' · '.join(told)}")


def _compare(screen: Screen, before: Sequence[Evaluation], after: Sequence[Evaluation]) -> None:
    known = {evaluation.temperature: evaluation for evaluation in before}
    for last in after:
        first = known.get(last.temperature)
        if first is None or not first.successes().keys() & last.successes().keys():
            continue
        how = "greedy" if first.temperature == 0 else f"sampled T={first.temperature:g}"
        difference = paired_difference(first.successes(), last.successes())
        screen.note(
            f"paired   {how:<13} {difference.points()} · {len(difference.better)} tasks won, "
            f"{len(difference.worse)} lost"
        )


def _save_curve(config: Config, folder: RunFolder, screen: Screen) -> None:
    evaluations = [Evaluation.load(path) for path in sorted((folder.path / "evaluations").glob("*.json"))]
    try:
        save_curve(folder.curve, f"{config.name}: {config.method.name}", read_metrics(folder.metrics), evaluations)
    except MissingDependencyError as error:
        screen.note(f"curve    not drawn: {error}")
        return
    screen.note(f"saved    {folder.path}  (weights in checkpoints/, curve.png, metrics.jsonl)")
