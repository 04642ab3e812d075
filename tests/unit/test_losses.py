"""The clipped objective and its corrections against published numbers, and gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders import make_groups, make_trajectory

from agentrl.batch import build_batch
from agentrl.losses import aggregation, corrections, regularisers, surrogates
from agentrl.losses.objective import LossInputs, Objective, Term, token_ratio

# Two rows of 3 and 4 sampled tokens: log ratio, old log-probabilities and advantages of the references.
LOG_RATIO = torch.tensor([0.3, -0.4, 0.05, 0.5, -0.6, 1.5, 0.0], dtype=torch.float64)
OLD = torch.tensor([-1.0, -2.0, -0.5, -0.7, -1.5, -3.0, -0.2], dtype=torch.float64)
ADVANTAGE = torch.tensor([1.0] * 3 + [-0.8] * 4, dtype=torch.float64)
ROW = torch.tensor([0] * 3 + [1] * 4)


def inputs(logprobs: torch.Tensor, **extra: torch.Tensor) -> LossInputs:
    fields = {"behavior_logprobs": OLD, "proximal_logprobs": OLD, "advantage": ADVANTAGE, "row": ROW, "trajectory": ROW}
    return LossInputs(logprobs=logprobs, **(fields | extra))


def scales() -> dict[str, torch.Tensor]:
    batch = build_batch(
        make_groups(g=[make_trajectory("a", "g", [0.0], lengths=[3]), make_trajectory("b", "g", [0.0], lengths=[4])])
    )
    named = {
        "token_mean": aggregation.token_mean,
        "trajectory_mean": aggregation.trajectory_mean,
        "step_mean": aggregation.step_mean,
        "trajectory_sum": aggregation.trajectory_sum,
        "constant": aggregation.constant(4),
    }
    return {name: torch.from_numpy(rule(batch.table, batch.columns)).double() for name, rule in named.items()}


CLIPPED = Objective(token_ratio, surrogates.clipped(low=0.2, high=0.28, dual=3.0))


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("token_mean", 0.308198),
        ("trajectory_mean", 0.144607),
        ("step_mean", 0.144607),
        ("trajectory_sum", 1.078693),
        ("constant", 1.078693 / 4),
    ],
)
def test_clipped_loss_reproduces_the_reference(name: str, loss: float) -> None:
    got = (scales()[name] * CLIPPED(inputs(OLD + LOG_RATIO)).loss).sum()
    assert got.item() == pytest.approx(loss, abs=2e-6)


def test_clipped_gradient_reproduces_the_reference() -> None:
    logprobs = (OLD + LOG_RATIO).requires_grad_()
    (scales()["token_mean"] * CLIPPED(inputs(logprobs)).loss).sum().backward()
    expected = [0, -0.09576, -0.150182, 0.188425, 0, 0, 0.114286]
    np.testing.assert_allclose(logprobs.grad, expected, atol=2e-6)


def test_aggregations_sum_over_any_split_of_the_tokens() -> None:
    loss = CLIPPED(inputs(OLD + LOG_RATIO)).loss
    for scale in scales().values():
        whole = (scale * loss).sum()
        parts = sum((scale[part] * loss[part]).sum() for part in (slice(0, 2), slice(2, 5), slice(5, 7)))
        assert whole.item() == pytest.approx(parts.item(), abs=1e-12)


OBJECTIVES = {
    "clipped": CLIPPED,
    "reinforce": Objective(token_ratio, surrogates.reinforce()),
    "likelihood": Objective(token_ratio, surrogates.negative_log_likelihood()),
    "truncated": Objective(token_ratio, surrogates.clipped(), corrections.truncated(), proximal="recompute"),
    "kl": Objective(token_ratio, surrogates.clipped(), regularisers=(Term(0.1, regularisers.kl_to_reference),)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    torch.manual_seed(0)
    start = (OLD + LOG_RATIO + 0.011).requires_grad_()
    reference = OLD + 0.3

    def total(logprobs: torch.Tensor) -> torch.Tensor:
        extra = {"behavior_logprobs": OLD - 0.2, "reference_logprobs": reference}
        return OBJECTIVES[name](inputs(logprobs, **extra)).loss.sum()

    assert torch.autograd.gradcheck(total, (start,), eps=1e-6, atol=1e-5)


DELTA = torch.tensor([0.3, -0.4, 0.9, 0.01, -0.02, 0.01, 0.0])


def test_truncated_correction_reproduces_the_reference() -> None:
    weight = corrections.truncated(high=2.0)(
        inputs(OLD.float(), behavior_logprobs=OLD.float(), proximal_logprobs=OLD.float() + DELTA)
    )
    np.testing.assert_allclose(weight, [1.349859, 0.67032, 2, 1.01005, 0.980199, 1.01005, 1], atol=1e-6)


def test_masked_correction_drops_tokens_outside_its_band() -> None:
    weight = corrections.masked(low=0.5, high=2.0)(
        inputs(OLD.float(), behavior_logprobs=OLD.float(), proximal_logprobs=OLD.float() + DELTA)
    )
    np.testing.assert_allclose(weight, [1.349859, 0.67032, 0, 1.01005, 0.980199, 1.01005, 1], atol=1e-6)


def test_correction_is_one_at_lag_zero_and_where_the_sampler_said_nothing() -> None:
    missing = OLD.clone()
    missing[2] = float("nan")
    weight = corrections.truncated()(inputs(OLD, behavior_logprobs=missing))
    assert weight.tolist() == [1.0] * 7


def test_correction_carries_no_gradient() -> None:
    proximal = OLD.clone().requires_grad_()
    assert not corrections.truncated()(inputs(OLD, proximal_logprobs=proximal)).requires_grad


def test_kl_is_the_third_estimator() -> None:
    got = regularisers.kl_to_reference(inputs(OLD + LOG_RATIO, reference_logprobs=OLD))
    expected = [0.040818, 0.091825, 0.001229, 0.106531, 0.222119, 0.72313, 0.0]
    np.testing.assert_allclose(got, expected, atol=2e-6)
