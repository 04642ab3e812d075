"""Regularisers (stage S9): terms added to the surrogate, per token.

Rule: a regulariser is minimised with a positive coefficient and says which numbers it needs; it raises
`TrainingError` where the objective did not ask for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from agentrl.batch import UpdateColumns
from agentrl.errors import TrainingError
from agentrl.losses.objective import LossInputs, Ratio, Regulariser, bounded_exp, token_ratio
from agentrl.types import JSON

Estimator = Literal["k1", "k2", "k3"]
Anchor = Literal["reference", "proximal", "teacher"]


def entropy_bonus(inputs: LossInputs) -> Tensor:
    """`-H` in nats: with a positive coefficient the policy is kept from collapsing."""
    if inputs.entropy is None:
        raise TrainingError("the entropy bonus needs entropies; set needs_entropy on the objective.")
    return -inputs.entropy


def kl(*, estimator: Estimator = "k3", anchor: Anchor = "reference") -> Regulariser:
    """Estimate of `KL(pi || anchor)` in nats, with `d = log pi - log pi_anchor` (Schulman 2020).

    k1 `d`: gradient 1, whose expectation is 0; it belongs into a reward, not into a loss. k2 `d^2 / 2`: gradient d, the
    right one on-policy. k3 `e^-d - 1 + d`: never negative, gradient `1 - e^-d`, right to first order. On samples of
    another policy wrap it in `by_ratio`.
    """

    def loss(inputs: LossInputs) -> Tensor:
        difference = inputs.logprobs - _anchored(inputs, anchor)
        if estimator == "k1":
            return difference
        if estimator == "k2":
            return difference**2 / 2
        return bounded_exp(-difference) - 1.0 + difference

    return loss


def kl_to_reference(inputs: LossInputs) -> Tensor:
    """K3, `e^{-d} - 1 + d` with `d = log pi - log pi_ref` (Schulman 2020): never negative, low variance."""
    return kl()(inputs)


def by_ratio(regulariser: Regulariser, ratio: Ratio = token_ratio) -> Regulariser:
    """`rho` times the term, gradient of both: unbiased on samples of the proximal policy (DeepSeek-V3.2, 2025).

    With K3 the gradient is then that of the KL itself, not of its first-order approximation.
    """

    def loss(inputs: LossInputs) -> Tensor:
        return bounded_exp(ratio(inputs)) * regulariser(inputs)

    return loss


def absolute_log_ratio(inputs: LossInputs) -> Tensor:
    """`|log rho|`, the penalty of KL-Cov (Cui et al. 2025)."""
    return token_ratio(inputs).abs()


def imitation(inputs: LossInputs) -> Tensor:
    """`-log pi` of the given tokens."""
    return -inputs.logprobs


def shaped_imitation(*, shape: float = 0.1) -> Regulariser:
    """`-pi / (pi + shape)` of the given tokens (LUFFY's policy shaping, arXiv 2504.14945; an expert's mu is 1).

    Its gradient on log pi is `-shape pi / (pi + shape)^2`: largest at pi = shape, small for what the policy would never
    say, and gone for what it says anyway, where that of `-log pi` is 1 everywhere.
    """

    def loss(inputs: LossInputs) -> Tensor:
        probability = inputs.logprobs.exp()
        return -probability / (probability + shape)

    return loss


def ratio_variance(inputs: LossInputs) -> Tensor:
    """`(rho - 1)^2`, whose mean is the variance of the ratio: a soft bound in place of a clip (R2VPO)."""
    return (bounded_exp(token_ratio(inputs)) - 1.0) ** 2


@dataclass(slots=True)
class BoundedVariance:
    """`lambda (rho - 1)^2`, lambda by dual ascent on "the update's mean is at most `limit`" (R2VPO).

    The abstract gives neither limit nor rate; both are choices of the user.
    """

    limit: float = 0.01
    rate: float = 1.0
    multiplier: float = 0.1
    "lambda at the start."

    def observe(self, update: UpdateColumns) -> None:
        ratio = np.exp(np.clip(update.logprobs - update.proximal_logprobs, -20.0, 20.0))
        mean = float(np.mean((ratio.astype(np.float64) - 1.0) ** 2)) if len(update) else 0.0
        self.multiplier = max(self.multiplier + self.rate * (mean - self.limit), 0.0)

    def __call__(self, inputs: LossInputs) -> Tensor:
        return self.multiplier * ratio_variance(inputs)

    def state(self) -> JSON:
        return {"multiplier": self.multiplier}

    def restore(self, state: JSON) -> None:
        self.multiplier = float(state["multiplier"])


@dataclass(slots=True)
class EntropySmoothing:
    """Keeps the entropy of each environment step near its own past (EPO, Xu et al. 2025).

    `|H - clip(H, low h, high h)|` per token, h the mean over earlier updates of the mean entropy of the tokens of
    equal step index; 0 before there is a past. The paper's penalty is a constant outside the bounds, which has no
    gradient; this is its hinge, which has. The paper's phase weights are left out.
    """

    low: float = 0.8
    high: float = 1.2
    sums: dict[int, float] = field(default_factory=dict, init=False)
    "Per step index, of the means of all updates seen."
    counts: dict[int, int] = field(default_factory=dict, init=False)
    past: dict[int, float] = field(default_factory=dict, init=False)
    "Means before the update at hand."

    def observe(self, update: UpdateColumns) -> None:
        self.past = {index: total / self.counts[index] for index, total in self.sums.items()}
        index = update.table.index[update.columns.row]
        for each in np.unique(index).tolist():
            mean = float(update.entropy[index == each].mean(dtype=np.float64))
            self.sums[each] = self.sums.get(each, 0.0) + mean
            self.counts[each] = self.counts.get(each, 0) + 1

    def __call__(self, inputs: LossInputs) -> Tensor:
        if inputs.entropy is None or inputs.index is None:
            raise TrainingError("entropy smoothing needs entropies and step indices; set needs_entropy.")
        size = max([*self.past, int(inputs.index.max()) if len(inputs.index) else 0]) + 1
        table = inputs.entropy.new_full((size,), float("nan"))
        for each, value in self.past.items():
            table[each] = value
        mean = table[inputs.index]
        entropy = inputs.entropy
        bounded = torch.minimum(torch.maximum(entropy, self.low * mean), self.high * mean).detach()
        # Where there is no past the bound is NaN; the entropy stands in for it, or its NaN would reach the gradient.
        bounded = torch.where(mean.isnan(), entropy.detach(), bounded)
        return torch.where(mean.isnan(), 0.0, (entropy - bounded).abs())

    def state(self) -> JSON:
        return {
            "sums": {str(k): v for k, v in self.sums.items()},
            "counts": {str(k): v for k, v in self.counts.items()},
        }

    def restore(self, state: JSON) -> None:
        self.sums = {int(k): float(v) for k, v in state["sums"].items()}
        self.counts = {int(k): int(v) for k, v in state["counts"].items()}


def _anchored(inputs: LossInputs, anchor: Anchor) -> Tensor:
    found = {
        "reference": inputs.reference_logprobs,
        "proximal": inputs.proximal_logprobs,
        "teacher": inputs.teacher_logprobs,
    }[anchor]
    if found is None:
        raise TrainingError(f"the KL term needs {anchor} log-probabilities; set needs_{anchor} on the objective.")
    return found
