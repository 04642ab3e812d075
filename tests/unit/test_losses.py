"""The clipped objective against published numbers, and how an objective puts its parts together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from loss_inputs import LOG_RATIO, OLD, inputs, scales, two_rows

from agentrl.batch import UpdateColumns
from agentrl.losses import corrections, regularisers, surrogates
from agentrl.losses.objective import Objective, Term, token_ratio
from agentrl.types import JSON, Floats

CLIPPED = Objective(token_ratio, surrogates.clipped(low=0.2, high=0.28, dual=3.0))


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("token_mean", 0.308198),
        ("trajectory_mean", 0.144607),
        ("step_mean", 0.144607),
        ("trajectory_sum", 1.078693),
        ("constant", 1.078693 / 4),
        ("prompt_mean", 0.308198),
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
    start = (OLD + LOG_RATIO + 0.011).requires_grad_()

    def total(logprobs: torch.Tensor) -> torch.Tensor:
        extra = {"behavior_logprobs": OLD - 0.2, "reference_logprobs": OLD + 0.3}
        return OBJECTIVES[name](inputs(logprobs, **extra)).loss.sum()

    assert torch.autograd.gradcheck(total, (start,), eps=1e-6, atol=1e-5)


def half(update: UpdateColumns) -> Floats:
    return np.full(len(update), 0.5, np.float32)


def doubled(update: UpdateColumns) -> Floats:
    return 2 * update.advantage


@dataclass(slots=True)
class Counter:
    """Counts what it is shown."""

    seen: int = 0

    def observe(self, update: UpdateColumns) -> None:
        self.seen += len(update)

    def __call__(self, update: UpdateColumns) -> float:
        return float(update.weight[0] * update.advantage[0])

    def state(self) -> JSON:
        return {"seen": self.seen}

    def restore(self, state: JSON) -> None:
        self.seen = state["seen"]


def test_an_objective_prepares_credits_then_weights_then_the_gate() -> None:
    gate = Counter()
    objective = replace(CLIPPED, credits=(doubled, doubled), weights=(half, half), gate=gate)
    prepared = objective.prepare(two_rows())
    np.testing.assert_allclose(prepared.advantage, [4] * 3 + [-3.2] * 4, rtol=1e-6)
    np.testing.assert_allclose(prepared.weight, 0.25)
    assert prepared.learning_rate == 1.0, "the gate sees the final weight, 0.25, and advantage, 4"
    assert gate.seen == 7
    assert objective.surveys and not CLIPPED.surveys


def test_a_terms_weight_says_where_it_acts() -> None:
    where = torch.tensor([0.0, 1, 0, 0, 2, 0, 0], dtype=torch.float64)
    term = Term(0.5, regularisers.absolute_log_ratio, half)
    objective = replace(CLIPPED, regularisers=(term,))
    plain = CLIPPED(inputs(OLD + LOG_RATIO)).loss
    got = objective(replace(inputs(OLD + LOG_RATIO), term_weights=(where,))).loss
    np.testing.assert_allclose(got - plain, 0.5 * where * LOG_RATIO.abs(), atol=1e-12)


def test_the_memory_of_an_objective_is_that_of_its_parts() -> None:
    objective = replace(CLIPPED, gate=Counter())
    objective.prepare(two_rows())
    other = replace(CLIPPED, gate=Counter())
    other.restore(objective.state())
    assert other.state() == {"gate": {"seen": 7}} == objective.state()
