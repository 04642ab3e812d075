"""Corrections for the sampler against published numbers, by level, and normalised over the whole update."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from loss_inputs import OLD, inputs, random_update, two_rows

from agentrl.losses import corrections
from agentrl.losses.objective import Correction, LossInputs

DELTA = torch.tensor([0.3, -0.4, 0.9, 0.01, -0.02, 0.01, 0.0])
TOKEN = [1.349859, 0.67032, 2, 1.01005, 0.980199, 1.01005, 1]


def shifted() -> LossInputs:
    old = OLD.float()
    return inputs(old, behavior_logprobs=old, proximal_logprobs=old + DELTA)


@pytest.mark.parametrize(
    ("correction", "expected"),
    [
        (corrections.truncated(high=2.0), TOKEN),
        (corrections.masked(low=0.5, high=2.0), [1.349859, 0.67032, 0, 1.01005, 0.980199, 1.01005, 1]),
        (corrections.truncated(high=2.0, level="trajectory"), [2, 2, 2, 1, 1, 1, 1]),
        (corrections.truncated(high=2.0, level="step"), [2, 2, 2, 1, 1, 1, 1]),
        (corrections.masked(low=0.5, high=2.0, level="trajectory"), [0, 0, 0, 1, 1, 1, 1]),
        (corrections.band(low=0.5, high=2.0, level="token"), [1, 1, 0, 1, 1, 1, 1]),
        (corrections.band(low=0.99, high=1.01), [0, 0, 0, 1, 1, 1, 1]),
        (corrections.band(low=0.5, high=2.0, reduction="sum"), [0, 0, 0, 1, 1, 1, 1]),
        (corrections.divergence_bound(high=0.3, estimator="k2", reduction="max"), [0, 0, 0, 1, 1, 1, 1]),
        (corrections.divergence_bound(high=0.2, estimator="k3", level="token"), [1, 1, 0, 1, 1, 1, 1]),
        (corrections.veto(low=0.69), [0, 0, 0, 1, 1, 1, 1]),
        (corrections.veto(low=0.01, high=2.0), [0, 0, 0, 1, 1, 1, 1]),
        (corrections.product(corrections.truncated(), corrections.veto(low=0.5)), TOKEN),
    ],
)
def test_correction_reproduces_the_reference(correction: Correction, expected: list[float]) -> None:
    np.testing.assert_allclose(correction(shifted()), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("token", [1.178111, 0.585032, 1.745532, 0.881537, 0.855484, 0.881537, 0.872766]),
        ("trajectory", [1.333333] * 3 + [0.666667] * 4),
    ],
)
def test_normalised_correction_reproduces_the_reference(level: corrections.Level, expected: list[float]) -> None:
    update = two_rows(proximal_logprobs=OLD + DELTA)
    weight = corrections.Normalised(corrections.truncated(high=2.0, level=level), level)
    np.testing.assert_allclose(weight(update), expected, atol=2e-6)


CORRECTIONS: list[Correction] = [
    corrections.truncated(),
    corrections.truncated(level="step"),
    corrections.truncated(level="trajectory"),
    corrections.masked(),
    corrections.masked(level="trajectory"),
    corrections.band(),
    corrections.band(level="step", reduction="sum"),
    corrections.divergence_bound(high=0.0),
    corrections.veto(),
    corrections.product(corrections.truncated(), corrections.veto()),
]


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_correction_is_one_at_lag_zero_and_where_the_sampler_said_nothing(correction: Correction) -> None:
    missing = OLD.clone()
    missing[2] = float("nan")
    assert correction(inputs(OLD, behavior_logprobs=missing)).tolist() == [1.0] * 7
    update = two_rows(behavior=missing)
    assert corrections.Normalised(correction)(update).tolist() == [1.0] * 7


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_correction_carries_no_gradient(correction: Correction) -> None:
    proximal = (OLD + DELTA).requires_grad_()
    assert not correction(inputs(OLD, proximal_logprobs=proximal)).requires_grad


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_a_rejection_of_one_trajectory_does_not_see_the_others(correction: Correction) -> None:
    update = random_update(5)
    given = corrections.as_inputs(update)
    whole = correction(given)
    for each in given.trajectory.unique():
        mine = given.trajectory == each
        row = given.row[mine]
        part = replace(
            given,
            behavior_logprobs=given.behavior_logprobs[mine],
            proximal_logprobs=given.proximal_logprobs[mine],
            row=row - row.min(),
            trajectory=torch.zeros_like(row),
        )
        np.testing.assert_allclose(correction(part), whole[mine], rtol=1e-5)


def test_a_long_trajectory_saturates_its_product_but_not_its_mean() -> None:
    """Why geometric rejection: 400 tokens that each are off by one percent."""
    ids = torch.zeros(400, dtype=torch.int64)
    zeros = torch.zeros(400)
    given = LossInputs(zeros, zeros - 0.01, zeros, zeros, ids, ids)
    assert corrections.truncated(high=2.0, level="trajectory")(given)[0] == 2.0
    assert not corrections.masked(low=0.5, high=2.0, level="trajectory")(given).any()
    assert corrections.band(low=0.98, high=1.02)(given).all()


def test_normalising_keeps_an_update_whose_weights_are_all_zero() -> None:
    update = two_rows(proximal_logprobs=OLD + 3)
    weight = corrections.Normalised(corrections.masked(low=0.5, high=2.0))
    assert weight(update).tolist() == [0.0] * 7
