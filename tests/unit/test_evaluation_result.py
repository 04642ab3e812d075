"""A result says what was played, apart from faults, and comes back from the disk as it was or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builders import make_step

from agentrl.errors import StoreError
from agentrl.evaluation.attempts import Attempt, attempt_of, count_tokens
from agentrl.evaluation.result import (
    RESULTS,
    Conditions,
    EvaluationResult,
    Manifest,
    NullRow,
    Prices,
    load_result,
)
from agentrl.evaluation.statistics import Interval
from agentrl.types import Status, Task, Trajectory, token_ids

MANIFEST = Manifest(
    suite="desk",
    version="1",
    hash="7f3c",
    environment="tool_desk",
    options={"level": "hard"},
    tasks=3,
    known_bad={"t9": "its room is not in the office"},
    policy="oracle",
    identity={"kind": "oracle"},
    conditions=Conditions(temperature=0.5, seed=3),
    distributions={"agentrl-framework": "0.1.0"},
    prices=Prices(prompt=1.0, completion=10.0),
)


def attempt(task: str, number: int, success: bool = False, status: str = "ok", **more: float) -> Attempt:
    outcome = "infrastructure" if status == "infrastructure_error" else "success" if success else "wrong_answer"
    played = Attempt(task, number, status, float(success), success, 2, 10, 2, 1, outcome=outcome, score=float(success))
    return replace(played, **more)  # type: ignore[arg-type]


RESULT = EvaluationResult(
    MANIFEST,
    (
        attempt("t0", 0, True, seconds=1.5, prompt_tokens=100),
        attempt("t0", 1, False),
        attempt("t0", 2, True),
        attempt("t1", 0, False),
        attempt("t1", 1, False),
        attempt("t1", 2, status="infrastructure_error"),
        attempt("t2", 0, status="infrastructure_error"),
    ),
    NullRow(Interval(0.0, 0.0, 0.1, 2), 0.0),
)


def test_faults_are_apart_and_the_score_is_the_mean_over_tasks() -> None:
    assert RESULT.faults() == 2
    assert RESULT.scores() == {"t0": [1.0, 0.0, 1.0], "t1": [0.0, 0.0]}
    interval = RESULT.interval()
    assert interval is not None and interval.value == pytest.approx((2 / 3 + 0) / 2) and interval.tasks == 2
    assert RESULT.outcomes() == {"wrong_answer": 3, "success": 2, "infrastructure": 2}


def test_pass_at_k_takes_the_tasks_that_were_tried_so_often() -> None:
    # t0: 2 of 3. One success among two draws: 1 - C(1,2)/C(3,2) = 1; both: C(2,2)/C(3,2) = 1/3. t1: none of 2.
    assert RESULT.pass_at(2) == pytest.approx((1 + 0) / 2)
    assert RESULT.pass_hat(2) == pytest.approx((1 / 3 + 0) / 2)
    assert RESULT.pass_at(3) == 1.0 and RESULT.pass_at(4) is None
    summary = RESULT.summary()
    assert list(summary["pass_at"]) == ["1", "2", "3"] and summary["pass_at"]["1"] == pytest.approx(1 / 3)


def test_prices_are_per_million_tokens_and_faults_cost_too() -> None:
    assert RESULT.cost() == pytest.approx((100 * 1.0 + 7 * 10 * 10.0) / 1e6)


def test_nothing_but_faults_has_no_score() -> None:
    nothing = replace(RESULT, attempts=(attempt("t0", 0, status="environment_error"),))
    assert nothing.interval() is None and nothing.summary()["pass_at"] == {} and nothing.mean(lambda a: a.steps) == 0


def test_the_digest_is_of_everything_but_the_clock() -> None:
    first, *rest = RESULT.attempts
    assert replace(RESULT, attempts=(replace(first, seconds=9.0), *rest)).digest() == RESULT.digest()
    assert replace(RESULT, attempts=(replace(first, tokens=11), *rest)).digest() != RESULT.digest()
    assert replace(RESULT, manifest=replace(MANIFEST, hash="7f3d")).digest() != RESULT.digest()


def test_it_comes_back_equal_and_leaves_nothing_beside(tmp_path) -> None:
    RESULT.save(tmp_path)
    assert load_result(tmp_path) == RESULT
    assert [path.name for path in tmp_path.iterdir()] == [RESULTS]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', "3", '{"format": 1, "attempts": [], "manifest": {}}'])
def test_a_torn_file_says_so_and_what_to_do(tmp_path, text) -> None:
    (tmp_path / RESULTS).write_text(text)
    with pytest.raises(StoreError, match=r"is no result of an evaluation.*Run the command of the evaluation again"):
        load_result(tmp_path)


def test_another_folder_and_another_format_are_told(tmp_path) -> None:
    with pytest.raises(StoreError, match="it is no evaluation"):
        load_result(tmp_path)
    (tmp_path / "evaluation.json").write_text("{}")
    with pytest.raises(StoreError, match="was not finished; run its command again"):
        load_result(tmp_path)
    RESULT.save(tmp_path)
    path = tmp_path / RESULTS
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(StoreError, match="has format 2"):
        load_result(tmp_path)


def test_tokens_are_the_whole_prompt_of_every_step_or_the_servers_count() -> None:
    # Two steps in one context, each with two prompt tokens and two sampled ones: prompts of 2 and of 6 tokens.
    steps = (make_step("t", 0), make_step("t", 1))
    assert count_tokens(Trajectory("t", Task("t", "e"), "t", steps, Status.OK)) == (8, 4)
    none = token_ids([])
    spoken = replace(
        make_step("c", 0, tokens=(), logprobs=()), prompt=none, scores={"prompt_tokens": 50.0, "completion_tokens": 7.0}
    )
    assert count_tokens(Trajectory("c", Task("t", "e"), "c", (spoken,), Status.OK)) == (50, 7)


def test_a_fault_scores_nothing_whatever_the_suite_says() -> None:
    last = replace(make_step("t", 0, reward=0.7, last=True), scores={"success": 1.0})
    good = Trajectory("t-0", Task("t", "e"), "t", (last,), Status.OK)
    played = attempt_of(good, 0, lambda trajectory: trajectory.reward)
    assert (played.score, played.success, played.episode, played.outcome) == (
        pytest.approx(0.7),
        True,
        "t-0",
        "success",
    )
    fault = attempt_of(replace(good, status=Status.ENVIRONMENT_ERROR), 0, lambda trajectory: trajectory.reward)
    assert (fault.score, fault.success, fault.scored, fault.outcome) == (0.0, False, False, "environment")
