"""Intervals and p-values against closed forms and a simulation with clusters."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from agentrl.errors import InvalidDataError
from agentrl.evaluation.statistics import (
    paired_difference,
    pass_at_k,
    pass_hat_k,
    score_interval,
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


def test_interval_of_clustered_attempts_covers_the_truth() -> None:
    rng = np.random.default_rng(1)
    covered, rounds = 0, 400
    for number in range(rounds):
        chance = rng.beta(2, 2, size=60)
        attempts = {str(i): rng.binomial(1, p, size=4).astype(float) for i, p in enumerate(chance)}
        got = score_interval(attempts, resamples=400, seed=number)
        covered += got.low <= 0.5 <= got.high
    assert 0.92 <= covered / rounds <= 0.98


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


def test_equal_results_differ_by_nothing() -> None:
    same = {str(i): [float(i % 2)] for i in range(30)}
    got = paired_difference(same, same)
    assert (got.interval.low, got.interval.value, got.interval.high, got.p_value) == (0, 0, 0, 1)


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
