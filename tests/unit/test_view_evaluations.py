"""An evaluation's first screen: finished, half played, torn, and beside one of another suite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from shown_runs import shown_trajectory, write_tokenizer

from agentrl.evaluation.attempts import attempt_of
from agentrl.evaluation.result import Conditions, EvaluationResult, Manifest, NullRow, write_json
from agentrl.evaluation.statistics import Interval
from agentrl.store.ledger import Ledger
from agentrl.types import Status, Task
from agentrl.view.collection import Collection
from agentrl.view.shapes import Overview

MANIFEST = Manifest(
    suite="desk",
    version="2",
    hash="abcdef0123456789",
    environment="keydoor",
    options={"size": 5},
    tasks=20,
    known_bad={"task-bad": "its answer is wrong"},
    policy="runs/first",
    identity={"kind": "run", "name": ""},
    conditions=Conditions(temperature=0.0, seed=4),
    distributions={"agentrl-framework": "0.1.0"},
    command="agentrl eval desk -m runs/first",
)


def write_evaluation(folder: Path, *, won: int = 15, manifest: Manifest = MANIFEST, finished: bool = True) -> Path:
    """20 tasks with two attempts each, the first `won` tasks solved; the last attempt of all is a fault."""
    folder.mkdir()
    write_json(folder / "evaluation.json", manifest)
    attempts = []
    with Ledger(folder) as ledger:
        for place in range(20):
            task = Task(f"task-t{place}", "keydoor")
            ledger.issue(place, task.id, task, [f"{task.id}-0", f"{task.id}-1"])
            for number in range(2):
                status = Status.INFRASTRUCTURE_ERROR if (place, number) == (19, 1) else Status.OK
                one = shown_trajectory(f"{task.id}-{number}", f"t{place}", reward=float(place < won), status=status)
                one = replace(one, group=task.id)
                ledger.finish(one)
                attempts.append(attempt_of(one, number))
    if finished:
        null = NullRow(Interval(0.0, 0.0, 0.16, 20), 0.0)
        EvaluationResult(manifest, tuple(attempts), null).save(folder)
    return folder


def overview(*folders: Path) -> Overview:
    with Collection(folders) as shown:
        return shown.overview()


def test_a_finished_evaluation_is_told_beside_a_policy_that_says_nothing(tmp_path: Path) -> None:
    found = overview(write_evaluation(tmp_path / "a"))
    facts = {fact.label: fact for fact in found.facts}
    assert found.verdict.startswith("runs/first scores 75.0% [")
    assert found.verdict.endswith(", above the 0.0% [0.0, 16.0] of a policy that says nothing.")
    assert (found.kind, found.title, found.command) == ("evaluation", "desk by runs/first", MANIFEST.command)
    assert facts["score"].note == "20 tasks, 39 attempts"
    assert (facts["pass@2"].value, facts["faults"].value, facts["faults"].tone) == ("78.9%", "1", "bad")
    assert facts["left out"].value == "task-bad"
    assert {one.key: (one.value, one.changed) for one in found.settings}["options.size"] == (5, False)


@pytest.mark.parametrize("torn", [False, True])
def test_an_evaluation_without_a_result_says_so_and_shows_what_was_played(tmp_path: Path, torn: bool) -> None:
    folder = write_evaluation(tmp_path / "a", finished=False)
    if torn:
        (folder / "results.json").write_text('{"format": 1, "manif')
    found = overview(folder)
    assert found.verdict.startswith("So far runs/first scores 75.0% [") and "not finished" in found.verdict
    assert found.episodes == 40 and found.outcomes["infrastructure"] == 1


def test_nothing_is_claimed_where_nothing_was_scored_and_no_manifest_is_there(tmp_path: Path) -> None:
    with Ledger(tmp_path / "a") as ledger:
        ledger.issue(0, "g", Task("t", "keydoor"), ["g-0"])
    assert overview(tmp_path / "a").verdict == "Nothing is known yet: no attempt was scored."


def test_a_difference_is_told_with_its_interval_and_not_between_suites_that_differ(tmp_path: Path) -> None:
    better = write_evaluation(tmp_path / "better")
    worse = write_evaluation(tmp_path / "worse", won=3)
    other = write_evaluation(tmp_path / "other", manifest=replace(MANIFEST, version="3", hash="another"))
    told = next(fact for fact in overview(better, worse).facts if fact.label == "difference to worse")
    assert told.value.startswith("+60.0 points [") and told.tone == "good" and "12 won, 0 lost" in told.note
    refused = next(fact for fact in overview(better, other).facts if fact.label == "difference to other")
    assert (refused.value, refused.note) == ("not comparable", "desk 3 is not desk 2")
    settings = {one.key: one for one in overview(better, other).settings}
    assert (settings["version"].value, settings["version"].baseline) == ("2", "3")


def test_tokens_are_those_of_the_run_that_was_evaluated(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "run" / "warm_start" / "model")
    manifest = replace(MANIFEST, identity={"kind": "run", "name": str(tmp_path / "run")})
    with Collection([write_evaluation(tmp_path / "a", manifest=manifest)]) as shown:
        found = shown.episode("task-t0-0")
    assert [token.text for token in found.steps[0].tokens] == ["go", "north"]
