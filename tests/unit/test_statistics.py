"""Intervals and p-values against closed forms and a simulation with clusters."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest, t, ttest_1samp
from support.clusters import Shape, pairs, results

from agentrl.errors import InvalidDataError
from agentrl.evaluation.signflip import sign_flip_p
from agentrl.evaluation.statistics import (
    paired_bounds,
    paired_difference,
    pass_at_k,
    pass_hat_k,
    score_bounds,
    score_interval,
    student_quantile,
    wilson,
)


def test_wilson_agrees_with_the_textbook() -> None:
    got = wilson(7, 20)
    assert (got.low, got.high) == pytest.approx((0.1812, 0.5671), abs=1e-4)
    assert wilson(0, 50).low == 0.0
    assert wilson(0, 50).high == pytest.approx(0.0713, abs=1e-4)
    for attempts in range(1, 400):
        for got in (wilson(0, attempts), wilson(attempts, attempts)):
            assert 0 <= got.low <= got.value <= got.high <= 1


def test_wilson_agrees_with_scipy() -> None:
    for successes, attempts in ((0, 9), (3, 20), (50, 50), (41, 97)):
        theirs = binomtest(successes, attempts).proportion_ci(method="wilson")
        got = wilson(successes, attempts)
        assert (got.low, got.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_one_attempt_a_task_is_wilsons_interval() -> None:
    attempts = {str(task): [float(task % 3 == 0)] for task in range(40)}
    got, expected = score_interval(attempts), wilson(14, 40)
    assert (got.value, got.low, got.high) == pytest.approx((14 / 40, expected.low, expected.high))


def test_attempts_that_all_end_alike_are_worth_one_a_task() -> None:
    for ends, wins in ((lambda task: 0.0, 0), (lambda task: 1.0, 30), (lambda task: float(task < 9), 9)):
        got, expected = score_interval({str(task): [ends(task)] * 8 for task in range(30)}), wilson(wins, 30)
        assert (got.low, got.high) == pytest.approx((expected.low, expected.high))


def test_attempts_that_do_not_depend_on_the_task_count_in_full() -> None:
    got, expected = score_interval({str(task): [1.0, 0.0] for task in range(50)}), wilson(50, 100)
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high))


def test_one_task_says_something_of_itself_alone() -> None:
    assert score_interval({"a": [1.0, 0.0, 1.0, 1.0]}) == wilson(3, 4)
    lone = score_interval({"a": [2.5]})
    assert (lone.low, lone.value, lone.high) == (2.5, 2.5, 2.5)


def test_scores_of_any_size_get_students_interval() -> None:
    rng = np.random.default_rng(3)
    means = rng.normal(2.0, 3.0, 12)
    got = score_interval({str(task): [mean - 1, mean + 1] for task, mean in enumerate(means)})
    theirs = ttest_1samp(means, 0).confidence_interval(0.95)
    assert (got.low, got.high) == pytest.approx((theirs.low, theirs.high), rel=1e-4)


def test_students_quantile_agrees_with_scipy() -> None:
    for freedom in (1, 2, 3, 4, 5, 7, 10, 30, 200, 5000):
        for probability in (0.6, 0.9, 0.95, 0.975, 0.995):
            assert student_quantile(probability, freedom) == pytest.approx(t.ppf(probability, freedom), rel=0.01)
        assert student_quantile(0.975, freedom) == pytest.approx(t.ppf(0.975, freedom), rel=0.002)


@pytest.mark.parametrize("attempts", [1, 2, 8])
@pytest.mark.parametrize("correlation", [0.0, 0.4, 0.8])
def test_the_interval_of_a_score_covers_the_truth(attempts: int, correlation: float) -> None:
    rng = np.random.default_rng(attempts)
    for tasks in (20, 60, 200):
        shape = Shape(tasks, attempts, correlation if attempts > 1 else 0.0)
        rate = rng.uniform(0.05, 0.95, 3000)
        low, high = score_bounds(results(rng, shape, rate), floor=1 / attempts)
        assert 0.93 <= ((low <= rate) & (rate <= high)).mean() <= 0.975


@pytest.mark.parametrize("attempts", [1, 4])
@pytest.mark.parametrize("gain", [0.0, 0.15])
def test_the_interval_of_a_difference_covers_the_truth(attempts: int, gain: float) -> None:
    rng = np.random.default_rng(attempts)
    for tasks in (20, 60, 200):
        first, last = pairs(rng, Shape(tasks, attempts, 0.4), 2000, rate=0.4, gain=gain, moved=0.3)
        low, high = paired_bounds(first, last, floors=(1 / attempts, 1 / attempts))
        assert 0.93 <= ((low <= gain) & (gain <= high)).mean() <= 0.98


@pytest.mark.parametrize("attempts", [1, 4])
def test_the_sign_flip_test_errs_as_often_as_it_says(attempts: int) -> None:
    rng = np.random.default_rng(attempts)
    first, last = pairs(rng, Shape(50, attempts, 0.3), 1000, rate=0.4, gain=0.0, moved=0.0)
    p = np.array([sign_flip_p(difference, attempts) for difference in last - first])
    assert 0.03 <= (p < 0.05).mean() <= 0.07


def test_the_sign_flip_test_is_mcnemars_at_one_attempt_and_counts_every_flip_at_more() -> None:
    differences = np.array([1.0] * 9 + [-1.0] * 2 + [0.0] * 20)
    mid = 2 * binom.cdf(2, 11, 0.5) - binom.pmf(2, 11, 0.5)
    assert sign_flip_p(differences, 1) == pytest.approx(mid)
    uneven = np.array([1 / 3, 2 / 3, -1 / 3, 1.0, 0.0, 2 / 3, 1 / 3])
    sums = [
        abs(sum(s * d for s, d in zip(signs, uneven, strict=True))) for signs in itertools.product((1, -1), repeat=7)
    ]
    seen = abs(uneven.sum())
    counted = sum(1.0 if abs(s - seen) > 1e-9 else 0.5 for s in sums if s > seen - 1e-9) / len(sums)
    assert sign_flip_p(uneven, 3) == pytest.approx(counted)
    assert sign_flip_p(uneven, None) == pytest.approx(counted, abs=0.01)


def test_one_attempt_a_task_gives_the_difference_of_bonett_and_price() -> None:
    before = {str(task): [float(task < 12)] for task in range(40)}
    after = {str(task): [float(4 <= task < 25)] for task in range(40)}
    won, lost, n = 13, 4, 42
    centre = (won - lost) / n
    half = 1.959964 * math.sqrt(((won + lost + 2) / n - centre**2) / n)
    got = paired_difference(before, after).interval
    assert (got.low, got.high) == pytest.approx((centre - half, centre + half), abs=1e-6)


def test_as_many_tasks_as_are_said_settle_it() -> None:
    rng = np.random.default_rng(5)
    first, last = pairs(rng, Shape(60, 1, 0.4), 1, rate=0.4, gain=0.1, moved=0.3)
    got = paired_difference(*({str(task): [mean] for task, mean in enumerate(side[0])} for side in (first, last)))
    needed = got.tasks_to_settle()
    assert needed is not None and got.p_value > 0.05 and needed > 60
    reach = 1.959964 + 0.841621
    assert needed == math.ceil((reach * got.spread / got.interval.value) ** 2)


def test_paired_difference_is_narrower_than_the_two_intervals() -> None:
    rng = np.random.default_rng(0)
    chance = rng.beta(0.5, 0.5, size=200)
    before = {str(i): [float(rng.random() < p)] for i, p in enumerate(chance)}
    after = {t: [max(v[0], float(rng.random() < 0.1))] for t, v in before.items()}
    got = paired_difference(before, after)
    plain = score_interval(before)
    assert got.interval.high - got.interval.low < plain.high - plain.low
    assert got.p_value < 0.01
    assert not got.worse and len(got.better) == round(got.interval.value * 200)


def test_equal_results_differ_by_nothing_and_still_leave_room() -> None:
    same = {str(i): [float(i % 2)] for i in range(30)}
    got = paired_difference(same, same)
    assert (got.interval.value, got.p_value, got.better, got.worse) == (0, 1, (), ())
    assert got.interval.low == pytest.approx(-got.interval.high) and 0.05 < got.interval.high < 0.15
    assert got.tasks_to_settle() is None


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(InvalidDataError, match="share no task"):
        paired_difference({"a": [1.0]}, {"b": [1.0]})
    with pytest.raises(InvalidDataError, match="no attempt"):
        score_interval({})


def test_pass_at_k_and_pass_hat_k_are_counts_over_all_draws() -> None:
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
                assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))
                assert pass_hat_k(n, c, k) == pytest.approx(sum(map(all, draws)) / len(draws))


def test_pass_at_k_is_unbiased() -> None:
    # The expectation over c ~ Binomial(n, p) is 1 - (1 - p)^k, and p^k.
    n, k, p = 9, 4, 0.3
    weights = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    assert sum(w * pass_at_k(n, c, k) for c, w in enumerate(weights)) == pytest.approx(1 - (1 - p) ** k)
    assert sum(w * pass_hat_k(n, c, k) for c, w in enumerate(weights)) == pytest.approx(p**k)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 1, 4), (3, 1, 0), (3, 4, 1), (0, 0, 1)])
def test_more_draws_than_attempts_are_refused(n: int, c: int, k: int) -> None:
    for estimate in (pass_at_k, pass_hat_k):
        with pytest.raises(InvalidDataError, match="smaller k"):
            estimate(n, c, k)
