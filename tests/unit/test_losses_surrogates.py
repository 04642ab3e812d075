"""Every surrogate: published numbers, a worked example or an identity, and its gradient by finite differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from loss_inputs import ADVANTAGE, LOG_RATIO, OLD, ROW, inputs, random_update, scales, two_rows
from torch import Tensor

from agentrl.losses import ratios, surrogates, trust_regions
from agentrl.losses.objective import LossInputs, Objective, Ratio, Surrogate, token_ratio
from agentrl.plugins import load_host


def loss_and_gradient(ratio: Ratio, surrogate: Surrogate, aggregation: str) -> tuple[float, Tensor]:
    logprobs = (OLD + LOG_RATIO).requires_grad_()
    total = (scales()[aggregation] * Objective(ratio, surrogate)(inputs(logprobs)).loss).sum()
    total.backward()
    assert logprobs.grad is not None
    return total.item(), logprobs.grad


def test_gspo_reproduces_the_reference() -> None:
    clipped = surrogates.clipped(low=0.2, high=0.28)
    loss, gradient = loss_and_gradient(ratios.sequence_geo, surrogates.clipped(low=0.2, high=1.0), "trajectory_mean")
    assert loss == pytest.approx(0.075891, abs=2e-6)
    np.testing.assert_allclose(gradient, [-0.163912] * 3 + [0.141907] * 4, atol=2e-6)
    assert loss_and_gradient(ratios.sequence_geo, clipped, "trajectory_mean")[0] == pytest.approx(0.075891, abs=2e-6)


def test_cispo_reproduces_the_reference() -> None:
    expected = [-0.182857, -0.114286, -0.150182, 0.146286, 0.091429, 0.146286, 0.114286]
    for surrogate in (surrogates.cispo(low=0.2, high=0.28), surrogates.cispo_between(lowest=0.8, highest=1.28)):
        loss, gradient = loss_and_gradient(token_ratio, surrogate, "token_mean")
        assert loss == pytest.approx(0.006325, abs=2e-6)
        np.testing.assert_allclose(gradient, expected, atol=2e-6)


def test_sapo_reproduces_the_reference() -> None:
    loss, _ = loss_and_gradient(token_ratio, surrogates.sapo(positive=1.0, negative=1.05), "trajectory_mean")
    assert loss == pytest.approx(-0.050845, abs=2e-6)


def test_gmpo_reproduces_the_reference() -> None:
    loss, gradient = loss_and_gradient(token_ratio, surrogates.gmpo(low=0.2, high=0.28), "trajectory_mean")
    assert loss == pytest.approx(0.138857, abs=2e-6)
    expected = [0, -0.162823, -0.162823, 0.156831, 0, 0.156831, 0.156831]
    np.testing.assert_allclose(gradient, expected, atol=2e-6)


def test_topr_keeps_the_good_whole_and_tapers_the_bad() -> None:
    _, gradient = loss_and_gradient(token_ratio, surrogates.topr(), "trajectory_sum")
    ratio = LOG_RATIO.exp()
    expected = -0.5 * torch.where(ADVANTAGE > 0, torch.ones_like(ratio), ratio.clamp(0, 1)) * ADVANTAGE
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)
    _, gradient = loss_and_gradient(ratios.sequence_prod, surrogates.topr(), "trajectory_sum")
    # The second trajectory has become likelier as a whole, e^1.4, and is cut at 1.
    np.testing.assert_allclose(gradient, [-0.5] * 3 + [0.4] * 4, rtol=1e-6)


def test_weighted_reinforce_has_the_gradient_of_the_plain_ratio() -> None:
    _, gradient = loss_and_gradient(token_ratio, surrogates.weighted_reinforce(), "token_mean")
    unclipped = surrogates.clipped(low=1.0, high=float("inf"))
    np.testing.assert_allclose(gradient, loss_and_gradient(token_ratio, unclipped, "token_mean")[1], rtol=1e-9)
    _, cut = loss_and_gradient(token_ratio, surrogates.weighted_reinforce(high=1.0), "token_mean")
    np.testing.assert_allclose(cut, -LOG_RATIO.exp().clamp(max=1) * ADVANTAGE / 7, rtol=1e-6)


def test_nft_is_likelihood_for_successes_and_implied_likelihood_for_failures() -> None:
    rate = 0.25
    ratio = torch.tensor([1.2, 0.5, 1.2, 1.0], dtype=torch.float64)
    logprobs = ratio.log().requires_grad_()
    zeros = torch.zeros(4, dtype=torch.float64)
    advantage = torch.tensor([1 - rate, -rate, -rate, 0.0], dtype=torch.float64)
    given = LossInputs(logprobs, zeros, zeros, advantage, torch.arange(4), torch.arange(4))
    loss = surrogates.nft(floor=1.0)(token_ratio(given), given).loss
    # (1 - 0.25 * 0.5) / 0.75 = 1.166667; at ratio 1.2 the implied ratio 0.9333 is raised to 1.
    np.testing.assert_allclose(loss.detach(), [-np.log(1.2), -np.log(1.1666667), 0, 0], atol=1e-6)
    loss.sum().backward()
    # Of the failures p rho / (1 - p) over the (raised) implied ratio.
    np.testing.assert_allclose(logprobs.grad, [-1, 0.25 * 0.5 / 0.75 / 1.1666667, 0.25 * 1.2 / 0.75, 0], atol=1e-6)


def test_dppo_drops_by_probability_and_not_by_ratio() -> None:
    proximal = torch.tensor([0.01, 0.5, 0.01, 0.5, 0.9], dtype=torch.float64).log()
    logprobs = torch.tensor([0.1, 0.75, 0.001, 0.25, 0.5], dtype=torch.float64).log().requires_grad_()
    advantage = torch.tensor([1.0, 1, -1, -1, 1], dtype=torch.float64)
    ids = torch.zeros(5, dtype=torch.int64)
    given = LossInputs(logprobs, proximal, proximal, advantage, ids, ids)
    output = trust_regions.probability_bounded()(token_ratio(given), given)
    output.loss.sum().backward()
    # Ten times likelier, yet only 0.09 of probability; 0.25 up; a tenth, yet 0.009; 0.25 down; 0.4 down but good.
    np.testing.assert_allclose(logprobs.grad, [-10, 0, 0.1, 0, -0.5 / 0.9], rtol=1e-6)
    assert output.metrics["clip_fraction"] == 2


def test_ring_counts_near_ratios_and_far_ones_that_lead_back() -> None:
    ratio = torch.tensor([1.0, 0.7, 0.3, 1.5, 3.0], dtype=torch.float64)
    ids = torch.zeros(10, dtype=torch.int64)
    logprobs = torch.cat([ratio, ratio]).log() - 1
    proximal = torch.full((10,), -1.0, dtype=torch.float64)
    advantage = torch.tensor([1.0] * 5 + [-1.0] * 5, dtype=torch.float64)
    given = LossInputs(logprobs.requires_grad_(), proximal, proximal, advantage, ids, ids)
    for bounds, expected in (
        ({"far_low": 0.6, "far_high": 1.0}, [-1, 0, -1, 0, 0, 1, 0, 0, 0, 1]),
        ({"far_low": 0.2, "far_high": 0.2}, [-1, -1, -1, 0, 0, 1, 0, 0, 1, 1]),
        ({"far_low": 1.0, "far_high": float("inf")}, [-1, 0, 0, 0, 0, 1, 0, 0, 0, 0]),
    ):
        logprobs.grad = None
        trust_regions.ring(**bounds)(token_ratio(given), given).loss.sum().backward()
        np.testing.assert_array_equal(logprobs.grad, expected)


def test_bounds_by_position_widen_and_start_again_in_each_trajectory() -> None:
    surrogate = trust_regions.position_clipped(low=0.1, high=0.2, power=0.5, dual=None)
    steps = torch.tensor([0.15, 0.25, 0.3, -0.05, -0.12, -0.2, -0.25], dtype=torch.float64)
    advantage = torch.tensor([1.0] * 3 + [-1.0] * 4, dtype=torch.float64)
    logprobs = (OLD + steps).requires_grad_()
    loss = surrogate(token_ratio(inputs(logprobs)), inputs(logprobs, advantage=advantage)).loss
    width = torch.tensor([1.0, 2, 3, 1, 2, 3, 4], dtype=torch.float64) ** 0.5
    bounded = torch.minimum(torch.maximum(steps, -0.1 * width), 0.2 * width)
    np.testing.assert_allclose(loss.detach(), -advantage * bounded.exp(), rtol=1e-9)
    loss.sum().backward()
    # Inside: 0.15 < 0.2, 0.25 < 0.283, 0.3 < 0.346; -0.05 > -0.1, -0.12 > -0.141; outside: -0.2 < -0.173, -0.25 < -0.2.
    assert (logprobs.grad != 0).tolist() == [True, True, True, True, True, False, False]


def test_a_dual_bound_by_position_holds_bad_tokens() -> None:
    surrogate = trust_regions.position_clipped(low=0.1, high=0.1, power=0.5, dual=0.1)
    logprobs = (OLD + 2.0).requires_grad_()
    given = inputs(logprobs, advantage=-torch.ones(7, dtype=torch.float64))
    loss = surrogate(token_ratio(given), given).loss
    width = torch.tensor([1.0, 2, 3, 1, 2, 3, 4], dtype=torch.float64) ** 0.5
    np.testing.assert_allclose(loss.detach(), torch.exp(0.1 * width), rtol=1e-9)


def test_adaptive_bounds_move_only_as_far_as_balance_needs() -> None:
    def bounds(good: float, bad: float, ratio_good: float = 2.0, ratio_bad: float = 0.5) -> tuple[float, float] | None:
        clip = trust_regions.AdaptiveClip()
        advantage = torch.tensor([good] * 3 + [-bad] * 4, dtype=torch.float64)
        log_ratio = torch.tensor([ratio_good] * 3 + [ratio_bad] * 4, dtype=torch.float64).log()
        clip.observe(two_rows(advantage=advantage, logprobs=OLD + log_ratio))
        return clip.bounds

    # 3 * 1.2 good against 4 * 0.6 bad: balanced from the start.
    assert bounds(1.0, 1.0) == (0.6, 1.2)
    # 3.6 against 4 * 1.6 * 0.6 = 3.84: the lower bound runs to its limit, where the bad sum is 6.4 * 0.9 = 5.76; then
    # the upper one goes on until 3 * upper is as much, at 1.95.
    lower, upper = bounds(1.0, 1.6) or (0.0, 0.0)
    assert (lower, upper) == pytest.approx((0.9, 1.95), abs=1e-9)
    # Nothing good at all: both go to their limits.
    assert bounds(0.0, 1.0) == (0.9, 3.0)


def test_adaptive_clip_is_ppos_clip_at_its_bounds() -> None:
    clip = trust_regions.AdaptiveClip(low=0.8, high=1.28, low_limit=0.8, high_limit=1.28)
    clip.observe(two_rows())
    got = loss_and_gradient(token_ratio, clip, "token_mean")
    assert got[0] == pytest.approx(0.308198, abs=2e-6)


SMOOTH: dict[str, Surrogate] = {
    "clipped": surrogates.clipped(low=0.2, high=0.28, dual=3.0),
    "sapo": surrogates.sapo(),
    "nft": surrogates.nft(floor=1e-3),
    "dppo": trust_regions.probability_bounded(),
    "position_clipped": trust_regions.position_clipped(),
    "adaptive": trust_regions.AdaptiveClip(),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_through_the_ratio_agree_with_finite_differences(name: str) -> None:
    start = (OLD + LOG_RATIO / 4 + 0.011).requires_grad_()
    advantage = torch.where(ROW == 0, 0.75, -0.25).double()

    def total(logprobs: Tensor) -> Tensor:
        given = inputs(logprobs, advantage=advantage)
        return SMOOTH[name](token_ratio(given), given).loss.sum()

    assert torch.autograd.gradcheck(total, (start,), eps=1e-6, atol=1e-5)


WEIGHTED: dict[str, Surrogate] = {
    "weighted_reinforce": surrogates.weighted_reinforce(high=2.0),
    "cispo": surrogates.cispo(),
    "topr": surrogates.topr(),
    "ring": trust_regions.ring(),
    "vespo": surrogates.vespo(),
    "cispo_between": surrogates.cispo_between(lowest=0.5, highest=2.0),
    "likelihood": surrogates.negative_log_likelihood(),
    "reinforce": surrogates.reinforce(),
    "scaled": surrogates.scaled(surrogates.reinforce(), 0.5),
}


@pytest.mark.parametrize("name", WEIGHTED)
def test_gradients_beside_a_detached_weight_agree_with_finite_differences(name: str) -> None:
    start = (OLD + LOG_RATIO).requires_grad_()

    def total(logprobs: Tensor) -> Tensor:
        return WEIGHTED[name](LOG_RATIO, inputs(logprobs)).loss.sum()

    assert torch.autograd.gradcheck(total, (start,), eps=1e-6, atol=1e-5)
    # And none flows through the weight.
    logprobs = (OLD + LOG_RATIO).requires_grad_()
    WEIGHTED[name](token_ratio(inputs(logprobs)), inputs(logprobs)).loss.sum().backward()
    total(start).backward()
    np.testing.assert_allclose(logprobs.grad, start.grad, rtol=1e-9)


def test_the_gradient_of_every_registered_loss_is_checked() -> None:
    """By its own name or under the one that it has here."""
    elsewhere = {"gmpo", "probability_bounded", "adaptive_clip", "negative_log_likelihood"}
    known = {"gmpo", "dppo", "adaptive", "likelihood"} | elsewhere | set(SMOOTH) | set(WEIGHTED)
    assert {entry.name for entry in load_host().entries("losses")} <= known


def test_gmpos_tokens_add_up_to_the_gradient_of_the_geometric_mean() -> None:
    surrogate = surrogates.gmpo(low=0.2, high=0.28)
    start = (OLD + LOG_RATIO).requires_grad_()

    def geometric_mean(logprobs: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for row, value in ((0, 1.0), (1, -0.8)):
            gap = (logprobs - OLD)[row == ROW]
            cut = torch.minimum(gap, gap.clamp(-0.2, 0.28)) if value > 0 else torch.maximum(gap, gap.clamp(-0.2, 0.28))
            total = total - value * cut.mean().exp() / 2
        return total

    assert torch.autograd.gradcheck(geometric_mean, (start,), eps=1e-6, atol=1e-5)
    geometric_mean(start).backward()
    np.testing.assert_allclose(
        loss_and_gradient(token_ratio, surrogate, "trajectory_mean")[1], start.grad, rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize(
    "make", [*SMOOTH.values(), *(part for name, part in WEIGHTED.items() if name != "likelihood"), surrogates.gmpo()]
)
def test_no_advantage_no_gradient(make: Surrogate) -> None:
    update = random_update(3)
    for ratio in (token_ratio, ratios.sequence_geo, ratios.cumulative):
        logprobs = torch.from_numpy(update.logprobs).double().requires_grad_()
        proximal = torch.from_numpy(update.proximal_logprobs).double()
        ids = torch.from_numpy(update.trajectory.astype(np.int64))
        given = LossInputs(logprobs, proximal, proximal, torch.zeros(len(update), dtype=torch.float64), ids, ids)
        loss = Objective(ratio, make)(given).loss
        assert not loss.any()
        loss.sum().backward()
        assert logprobs.grad is None or not logprobs.grad.any()


@pytest.mark.parametrize("make", [*SMOOTH.values(), *WEIGHTED.values(), surrogates.gmpo()])
def test_a_broken_token_stays_finite(make: Surrogate) -> None:
    logprobs = (OLD - torch.tensor([200.0, 0, 0, 0, 0, 0, -200.0])).requires_grad_()
    loss = Objective(token_ratio, make)(inputs(logprobs)).loss
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(logprobs.grad).all()  # type: ignore[arg-type]


def test_the_first_epoch_clips_nothing() -> None:
    parts: list[Callable[..., Surrogate]] = [surrogates.clipped, surrogates.cispo, surrogates.gmpo, trust_regions.ring]
    for make in [*parts, trust_regions.position_clipped, trust_regions.probability_bounded]:
        metrics = Objective(token_ratio, make())(inputs(OLD)).metrics
        assert not sum(value for name, value in metrics.items() if name.startswith("clip")), make


def test_metrics_count_tokens() -> None:
    metrics = surrogates.clipped(low=0.2, high=0.28)(LOG_RATIO, replace(inputs(OLD))).metrics
    assert (metrics["clip_fraction_high"], metrics["clip_fraction_low"]) == (1, 1)
