"""Two results compared task by task: what is counted, what is refused, what is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agentrl.cli.main import run
from agentrl.errors import ConfigError, StoreError
from agentrl.evaluation.attempts import Attempt
from agentrl.evaluation.comparison import Side, compare
from agentrl.evaluation.harness import Evaluation
from agentrl.evaluation.result import Conditions, EvaluationResult, Manifest, Prices
from agentrl.evaluation.statistics import paired_measure
from agentrl.runs.sides import open_side

SUITE = {"suite": "doors", "version": "1", "hash": "abc"}


def played(task: str, score: float, *, number: int = 0, tokens: int = 10, status: str = "ok") -> Attempt:
    return Attempt(
        task=task,
        number=number,
        status=status,
        reward=score,
        success=score > 0,
        steps=3,
        tokens=tokens,
        calls=3,
        wrong_calls=0,
        episode=f"{task}/{number}",
        outcome="success" if score else "wrong_answer",
        score=score,
        seconds=0.5,
    )


def side(name: str, *attempts: Attempt) -> Side:
    return Side(name, SUITE, attempts, {"policy": name})


def manifest(policy: str, **changes: object) -> Manifest:
    told = Manifest(
        suite="doors",
        version="1",
        hash="abc",
        environment="keydoor",
        options={"size": 4},
        tasks=40,
        known_bad={},
        policy=policy,
        identity={"kind": policy},
        conditions=Conditions(),
        distributions={"agentrl": "0.1.0"},
        prices=Prices(1.0, 2.0),
    )
    return replace(told, **changes)  # type: ignore[arg-type]


def saved(folder: Path, wins: int, **changes: object) -> Path:
    attempts = tuple(played(f"t{task}", float(task < wins)) for task in range(40))
    EvaluationResult(manifest(folder.name, **changes), attempts).save(folder)
    return folder


def test_tasks_that_went_up_and_down_are_named_with_their_episodes() -> None:
    before = side("a", *(played(f"t{i}", float(i < 5)) for i in range(20)))
    after = side("b", *(played(f"t{i}", float(2 <= i < 12), number=1) for i in range(20)))
    found = compare(before, after)
    assert {flip.task for flip in found.won} == {f"t{i}" for i in range(5, 12)}
    assert [flip.task for flip in found.lost] == ["t0", "t1"]
    assert (found.lost[0].before, found.lost[0].after) == (1.0, 0.0)
    assert (found.lost[0].episodes_before, found.lost[0].episodes_after) == (("t0/0",), ("t0/1",))
    assert found.difference.interval.value == pytest.approx(0.25)
    assert (found.before.value, found.after.value) == (0.25, 0.5)


def test_a_fault_is_no_failure_and_a_task_of_one_side_is_left_out() -> None:
    before = side("a", played("x", 1.0), played("y", 0.0), played("z", 1.0))
    after = side("b", played("x", 1.0), played("y", 0.0, status="infrastructure_error"), played("w", 1.0))
    found = compare(before, after)
    assert found.difference.interval.tasks == 1 and found.difference.interval.value == 0.0
    assert found.faults == (0, 1) and found.only == (2, 1)
    assert not found.won and not found.lost


def test_the_largest_change_stands_first() -> None:
    before = side("a", *(played(t, s, number=n) for t in "xy" for n, s in enumerate((0.0, 0.0, 1.0, 0.0))))
    after = side(
        "b",
        *(played("x", s, number=n) for n, s in enumerate((1.0, 0.0, 1.0, 0.0))),
        *(played("y", s, number=n) for n, s in enumerate((1.0, 1.0, 1.0, 1.0))),
    )
    found = compare(before, after)
    assert [(flip.task, flip.before, flip.after) for flip in found.won] == [("y", 0.25, 1.0), ("x", 0.25, 0.5)]


def test_how_many_more_tasks_would_settle_it_is_said_where_it_is_open() -> None:
    before = side("a", *(played(f"t{i}", float(i % 2)) for i in range(30)))
    after = side("b", *(played(f"t{i}", float(i % 2 or i < 4)) for i in range(30)))
    found = compare(before, after)
    needed = found.difference.tasks_to_settle()
    assert not found.settled and needed is not None and found.more_tasks() == needed - 30
    assert f"About {needed - 30} more tasks" in found.verdict()
    large = compare(before, side("c", *(played(f"t{i}", 1.0) for i in range(30))))
    assert large.settled and large.verdict().startswith("B is better than A: +50.0 points")
    assert compare(before, before).more_tasks() is None
    assert compare(before, before).verdict().startswith("No difference was seen")


def test_lengths_and_cost_are_compared_as_scores_are() -> None:
    before = [played(f"t{i}", 1.0, tokens=10 + i) for i in range(12)]
    after = [played(f"t{i}", 1.0, tokens=14 + i + i % 2) for i in range(12)]
    found = compare(
        replace(side("a", *before), costs=tuple(0.1 * a.tokens for a in before)),
        replace(side("b", *after), costs=tuple(0.1 * a.tokens for a in after)),
    )
    expected = paired_measure({a.task: [a.tokens] for a in before}, {a.task: [a.tokens] for a in after})
    assert found.measures["sampled tokens"] == expected
    assert expected.interval.value == pytest.approx(4.5)
    assert found.measures["seconds"].interval.high == 0.0
    assert found.measures["cost"].interval.value == pytest.approx(0.45)
    assert "prompt tokens" not in found.measures


def test_two_suites_are_refused_with_what_differs(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "a", 10), saved(tmp_path / "b", 10, version="2", hash="def")
    with pytest.raises(ConfigError, match=r"version '1' and '2'; hash 'abc' and 'def'.*evaluate both policies again"):
        compare(open_side(first), open_side(second))
    with pytest.raises(ConfigError, match="none is in both"):
        compare(side("a", played("x", 1.0)), side("b", played("y", 1.0)))


def test_the_command_prints_the_verdict_the_flips_and_their_links(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = saved(tmp_path / "a b", 10), saved(tmp_path / "b", 30, conditions=Conditions(temperature=1.0))
    command("compare", str(first), str(second))
    told = capsys.readouterr().out
    assert told.startswith("verdict   B is better than A: +50.0 points")
    assert "20 tasks went up, 0 went down" in told and "and 15 more" in told
    assert f"agentrl view '{first}' --episode t10/0" in told and f"agentrl view {second} --episode t10/0" in told
    assert "differs   temperature: 0 in A, 1 in B" in told
    command("compare", str(first), str(second / "results.json"), "--json")
    document = json.loads(capsys.readouterr().out)
    assert document["settled"] is True and len(document["won"]) == 20
    assert document["difference"]["interval"]["value"] == 0.5
    assert document["measures"]["cost"]["interval"]["value"] == 0.0


def command(*words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run(words)
    assert ended.value.code == 0


def held_out(folder: Path, update: int, wins: int, size: int = 4) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(f'[environment]\nname = "keydoor"\nsize = {size}\n')
    for temperature in (0.0, 1.0):
        attempts = tuple(replace(played(f"t{i}", float(i < wins)), score=0.0) for i in range(24))
        path = folder / "evaluations" / f"update-{update:06d}-temperature-{temperature:g}.json"
        Evaluation("keydoor", temperature, update, attempts).save(path)
    return folder


def test_a_run_is_its_newest_weights_at_the_lowest_temperature(tmp_path: Path) -> None:
    run_folder = held_out(tmp_path / "run", 0, 2)
    held_out(run_folder, 12, 20)
    newest = open_side(run_folder)
    assert newest.name.endswith("update-000012-temperature-0.json")
    found = compare(open_side(run_folder / "evaluations" / "update-000000-temperature-0.json"), newest)
    assert found.difference.interval.value == pytest.approx(18 / 24) and found.settled
    with pytest.raises(ConfigError, match="options"):
        compare(newest, open_side(held_out(tmp_path / "other", 0, 2, size=6)))


def test_what_was_never_measured_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither an evaluation nor a run"):
        open_side(tmp_path)
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(ConfigError, match="agentrl eval"):
        open_side(tmp_path)
    torn = saved(tmp_path / "torn", 4)
    (torn / "results.json").write_text('{"format": 1, "mani')
    with pytest.raises(StoreError, match="Run the command of the evaluation again"):
        open_side(torn)
