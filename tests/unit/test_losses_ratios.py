"""Ratios: their value, their gradient form, and that a micro-batch cannot be seen in them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_inputs import LOG_RATIO, OLD, ROW, inputs, scales
from torch import Tensor

from agentrl.losses import ratios, surrogates
from agentrl.losses.objective import LossInputs, Objective, Ratio
from agentrl.losses.segments import place, running_min, running_sum, segment_max, segment_mean, segment_sum

STEPS = torch.tensor([0, 0, 1, 2, 3, 3, 3])
EXPECTED = {
    "token_ratio": [0.3, -0.4, 0.05, 0.5, -0.6, 1.5, 0.0],
    "sequence_geo": [-0.05 / 3] * 3 + [0.35] * 4,
    "step_geo": [-0.05, -0.05, 0.05, 0.5, 0.3, 0.3, 0.3],
    "sequence_prod": [-0.05] * 3 + [1.4] * 4,
    "cumulative": [0.3, -0.1, -0.05, 0.5, -0.1, 1.4, 1.4],
    # The token's own plus the smallest before it; nothing stands before the first.
    "prefix_min": [0.3, -0.1, -0.35, 0.5, -0.1, 0.9, -0.6],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_value_is_the_aggregate_and_gradient_is_the_tokens_own(name: str) -> None:
    ratio: Ratio = getattr(ratios, name)
    logprobs = (OLD + LOG_RATIO).requires_grad_()
    got = ratio(inputs(logprobs, row=STEPS))
    np.testing.assert_allclose(got.detach(), EXPECTED[name], atol=1e-12)
    got.exp().sum().backward()
    np.testing.assert_allclose(logprobs.grad, np.exp(EXPECTED[name]), rtol=1e-9)


def test_joint_gspo_has_the_gradient_of_the_mean() -> None:
    start = (OLD + LOG_RATIO).requires_grad_()

    def total(logprobs: Tensor) -> Tensor:
        return ratios.sequence_geo_joint(inputs(logprobs)).exp().sum()

    assert torch.autograd.gradcheck(total, (start,), eps=1e-6, atol=1e-5)


def test_gspo_token_equals_gspo_at_equal_tokens() -> None:
    """One advantage and one scale in a trajectory: both forms are one objective (Zheng et al. 2025, section 4.3)."""
    gradients = []
    for ratio in (ratios.sequence_geo, ratios.sequence_geo_joint):
        for clip in (surrogates.clipped(low=0.2, high=0.28), surrogates.clipped(low=0.01, high=0.01)):
            logprobs = (OLD + LOG_RATIO).requires_grad_()
            (scales()["trajectory_mean"] * Objective(ratio, clip)(inputs(logprobs)).loss).sum().backward()
            gradients.append(logprobs.grad)
    for token, joint in zip(gradients[:2], gradients[2:], strict=True):
        np.testing.assert_allclose(token, joint, rtol=1e-6)


@pytest.mark.parametrize("name", EXPECTED)
def test_an_unchanged_policy_has_ratio_one(name: str) -> None:
    assert not getattr(ratios, name)(inputs(OLD)).any()


def test_one_token_trajectories_make_all_ratios_one_and_the_same() -> None:
    alone = torch.arange(7)
    for name in EXPECTED:
        got = getattr(ratios, name)(inputs(OLD + LOG_RATIO, row=alone, trajectory=alone))
        np.testing.assert_allclose(got, LOG_RATIO, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_trajectory_does_not_see_its_neighbours(name: str) -> None:
    ratio: Ratio = getattr(ratios, name)
    whole = ratio(inputs(OLD + LOG_RATIO, row=STEPS))
    for row in (0, 1):
        mine = row == ROW
        ids = torch.zeros(int(mine.sum()), dtype=torch.int64)
        steps = STEPS[mine] - STEPS[mine].min()
        part = LossInputs((OLD + LOG_RATIO)[mine], OLD[mine], OLD[mine], ids.double(), steps, ids)
        np.testing.assert_allclose(ratio(part), whole[mine], atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 2**16))
def test_segments_agree_with_a_loop(lengths: list[int], seed: int) -> None:
    ids = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    values = torch.randn(len(ids), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for each in range(len(lengths)):
        own, mine = values[ids == each], ids == each
        torch.testing.assert_close(running_sum(values, ids)[mine], own.cumsum(0))
        torch.testing.assert_close(running_min(values, ids)[mine], own.cummin(0).values)
        torch.testing.assert_close(segment_sum(values, ids)[mine], own.sum().expand(len(own)))
        torch.testing.assert_close(segment_mean(values, ids)[mine], own.mean().expand(len(own)))
        torch.testing.assert_close(segment_max(values, ids)[mine], own.max().expand(len(own)))
        assert place(ids)[mine].tolist() == list(range(len(own)))


def test_a_running_sum_forgets_what_stood_before_in_float32() -> None:
    values = torch.cat([torch.full((1000,), 1e4), torch.full((3,), 1e-4)])
    ids = torch.cat([torch.zeros(1000, dtype=torch.int64), torch.ones(3, dtype=torch.int64)])
    np.testing.assert_allclose(running_sum(values, ids)[1000:], [1e-4, 2e-4, 3e-4], rtol=1e-4)
