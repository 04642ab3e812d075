"""The per-token objective: a ratio, a surrogate, a correction for the sampler, regularisers.

Everything here is a pure function of aligned tensors of shape [n], one entry per sampled token, in nats. Nothing
is averaged: the caller multiplies by the batch's scale and sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

Proximal = Literal["behavior", "current", "recompute"]


@dataclass(frozen=True, slots=True, eq=False)
class LossInputs:
    """What an objective may look at; float32 unless said otherwise."""

    logprobs: Tensor
    "[n] current policy at the sampling temperature; carries the gradient."
    behavior_logprobs: Tensor
    "[n] of the weights that sampled."
    proximal_logprobs: Tensor
    "[n] of the weights that the ratio is taken against."
    advantage: Tensor
    "[n]"
    row: Tensor
    "[n] int64, step of the token, local to the micro-batch."
    trajectory: Tensor
    "[n] int64, trajectory of the token, local to the micro-batch."
    reference_logprobs: Tensor | None = None
    entropy: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LossOutput:
    loss: Tensor
    "[n], to be scaled and summed; its gradient is the update direction."
    metrics: dict[str, Tensor] = field(default_factory=dict)
    "Sums over the n tokens; the learner divides by the tokens of the batch."


Ratio = Callable[[LossInputs], Tensor]
"[n] log ratio of current to proximal policy, with the gradient form of its granularity."
Surrogate = Callable[[Tensor, LossInputs], LossOutput]
Correction = Callable[[LossInputs], Tensor]
"[n] detached weight for the gap between proximal and behavior policy."
Regulariser = Callable[[LossInputs], Tensor]


@dataclass(frozen=True, slots=True)
class Objective:
    """`correction * surrogate(ratio) + sum of regularisers`, per token."""

    ratio: Ratio
    surrogate: Surrogate
    correction: Correction | None = None
    regularisers: tuple[tuple[float, Regulariser], ...] = ()
    proximal: Proximal = "behavior"
    """What the ratio is taken against: the sampler itself; the current weights (one update a batch, ratio 1); or a
    pass over the whole batch before its first update."""
    needs_entropy: bool = False
    needs_reference: bool = False

    def __call__(self, inputs: LossInputs) -> LossOutput:
        output = self.surrogate(self.ratio(inputs), inputs)
        loss, metrics = output.loss, dict(output.metrics)
        if self.correction is not None:
            weight = self.correction(inputs)
            loss = loss * weight
            metrics["correction_mean"] = weight.sum()
        for coefficient, regulariser in self.regularisers:
            loss = loss + coefficient * regulariser(inputs)
        return LossOutput(loss, metrics)


def token_ratio(inputs: LossInputs) -> Tensor:
    """`log pi_theta - log pi_prox` of each token."""
    return inputs.logprobs - inputs.proximal_logprobs


def bounded_exp(log_ratio: Tensor, bound: float = 20.0) -> Tensor:
    """exp with its argument clamped, so that one broken token is a large number and not an infinity."""
    return torch.exp(log_ratio.clamp(-bound, bound))
