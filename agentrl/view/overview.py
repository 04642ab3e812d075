"""The first screen: one sentence to decide by, the numbers behind it, and what would make them again.

A verdict claims a change only where its interval does not hold 0; what was not measured is said to be unknown.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from agentrl.errors import InvalidDataError
from agentrl.evaluation.harness import Evaluation
from agentrl.evaluation.statistics import PairedDifference, paired_difference
from agentrl.training.health import health_of
from agentrl.view.archive import Archive, primary
from agentrl.view.curves import held_out_curves, manner, metric_curves, success_of
from agentrl.view.evaluated import MOST_TASKS, evaluation_told
from agentrl.view.recipe import recipe_defaults, settings_of
from agentrl.view.shapes import Fact, Overview


def overview(archives: Sequence[Archive]) -> Overview:
    """Of the first one; the second one is its baseline."""
    archive = archives[0]
    baseline = archives[1] if len(archives) > 1 else None
    metrics = archive.metrics()
    evaluations = archive.evaluations()
    outcomes = archive.outcomes()
    verdict, facts = _run(archive, evaluations, metrics) if archive.is_run else evaluation_told(archive)
    if baseline is not None:
        facts = [*facts, _difference(baseline, archive)]
    return Overview(
        kind="run" if archive.is_run else "evaluation",
        title=_title(archive),
        folder=str(archive.folder),
        verdict=verdict,
        facts=facts,
        command=_command(archive),
        settings=settings_of(
            archive.conditions(),
            baseline.conditions() if baseline else None,
            recipe_defaults() if archive.is_run else {},
        ),
        curves=[*held_out_curves(evaluations, metrics), *metric_curves(metrics)],
        health=health_of(metrics),
        outcomes=outcomes,
        episodes=sum(outcomes.values()),
        live=archive.reader.live(),
        revision=archive.revision(),
        runs=[one.name for one in archives],
    )


def _run(
    archive: Archive, evaluations: Sequence[Evaluation], metrics: Sequence[Mapping[str, Any]]
) -> tuple[str, list[Fact]]:
    measured = primary(evaluations, archive.recipe)
    recipe = archive.recipe
    facts = _first_and_last(measured)
    others = {e.temperature for e in evaluations if e.successes()} - {e.temperature for e in measured}
    for temperature in sorted(others):
        facts += _first_and_last([e for e in evaluations if e.temperature == temperature])
    wanted = int(recipe.get("training", {}).get("batches", 0))
    if metrics:
        last, batch = metrics[-1], int(metrics[-1]["batch"])
        facts += [
            Fact("batches", f"{batch} of {max(wanted, batch)}", f"{int(last.get('update') or 0)} updates"),
            Fact("success while training", _percent(last.get("success")), "last batch"),
            Fact("valid tool calls", _percent(last.get("call_validity")), "last batch"),
        ]
        if isinstance(last.get("mismatch"), float):
            facts.append(Fact("learner and sampler differ", f"{last['mismatch']:.4f} nats", "a token, last batch"))
    facts += [
        Fact("environment", str(recipe.get("environment", {}).get("name", "unknown"))),
        Fact("model", str(recipe.get("model", {}).get("path") or recipe.get("model", {}).get("name", "unknown"))),
        Fact("method", str(recipe.get("method", {}).get("name", "unknown")), f"seed {recipe.get('seed', 0)}"),
    ]
    return _verdict(measured), facts


def _first_and_last(evaluations: Sequence[Evaluation]) -> list[Fact]:
    return [_score(evaluation) for evaluation in (*evaluations[:1], *evaluations[1:][-1:])]


def _verdict(measured: Sequence[Evaluation]) -> str:
    if not measured:
        return "Nothing is known about held-out tasks: no evaluation has been made."
    first, last = measured[0], measured[-1]
    tasks, how = len(last.successes()), manner(last.temperature)
    if first is last:
        when = "Before training" if first.update == 0 else f"After {first.update} updates"
        said = f"{when}, success on {tasks} held-out tasks was {success_of(first).percent()}, {how}"
        return f"{said}; there is no other evaluation to compare it with yet."
    difference = _paired(first, last)
    if difference is None:
        return f"Success was {success_of(first).percent()} and is {success_of(last).percent()}, on other tasks."
    said = f"from {success_of(first).percent()} to {success_of(last).percent()} on {tasks} held-out tasks, {how}"
    if _beyond_chance(difference):
        verb = "rose" if difference.interval.value > 0 else "fell"
        return f"Success {verb} {said}: {difference.points()}."
    return f"No change of success beyond chance: {said}: {difference.points()}."


def _difference(baseline: Archive, archive: Archive) -> Fact:
    """On the tasks that both tried, unless they are tasks of suites that differ."""
    label = f"difference to {baseline.name}"
    one, other = baseline.manifest(), archive.manifest()
    if one is not None and other is not None and one.hash != other.hash:
        return Fact(label, "not comparable", f"{one.suite} {one.version} is not {other.suite} {other.version}", "bad")
    before, after = held_out(baseline), held_out(archive)
    shared = before.keys() & after.keys()
    if not shared:
        return Fact(label, "not comparable", "the two share no task")
    if len(shared) > MOST_TASKS:
        change = sum(_mean(after[task]) - _mean(before[task]) for task in shared) / len(shared)
        return Fact(label, f"{100 * change:+.1f} points", f"{len(shared)} shared tasks")
    difference = paired_difference(before, after)
    better, worse = len(difference.better), len(difference.worse)
    tone = ("good" if difference.interval.value > 0 else "bad") if _beyond_chance(difference) else ""
    return Fact(label, difference.points(), f"{len(shared)} shared tasks: {better} won, {worse} lost", tone)


def held_out(archive: Archive) -> Mapping[str, Sequence[float]]:
    """By task the scored attempts: an evaluation's episodes, or a run's newest evaluation on held-out tasks."""
    if not archive.is_run:
        return archive.successes()
    measured = primary(archive.evaluations(), archive.recipe)
    return measured[-1].successes() if measured else {}


def _score(evaluation: Evaluation) -> Fact:
    when = "before training" if evaluation.update == 0 else f"after {evaluation.update} updates"
    score = success_of(evaluation)
    return Fact(f"success {when}", score.percent(), f"{score.tasks} held-out tasks, {manner(evaluation.temperature)}")


def _paired(first: Evaluation, last: Evaluation) -> PairedDifference | None:
    try:
        return paired_difference(first.successes(), last.successes())
    except InvalidDataError:
        return None


def _beyond_chance(difference: PairedDifference) -> bool:
    return difference.interval.low > 0 or difference.interval.high < 0


def _title(archive: Archive) -> str:
    manifest = archive.manifest()
    if manifest is not None:
        return f"{manifest.suite} by {manifest.policy}"
    return str(archive.recipe.get("name") or archive.name)


def _command(archive: Archive) -> str:
    """Makes a run of the same recipe beside it; makes or continues an evaluation."""
    if not archive.is_run:
        manifest = archive.manifest()
        return manifest.command if manifest else ""
    again = archive.folder.parent / f"{archive.folder.name}-again"
    return shlex.join(["agentrl", "train", str(archive.folder / "config.toml"), "--run-folder", str(again)])


def _percent(share: object) -> str:
    return f"{100 * share:.1f}%" if isinstance(share, int | float) else "not measured"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
