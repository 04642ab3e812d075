"""Surrogates: what is maximised, and where trust in the ratio ends. One function per objective."""

from __future__ import annotations

import torch
from torch import Tensor

from agentrl.losses.objective import LossInputs, LossOutput, Surrogate, bounded_exp


def clipped(*, low: float = 0.2, high: float = 0.2, dual: float | None = None) -> Surrogate:
    """PPO's pessimistic clip (Schulman et al. 2017, eq. 7): `-min(rho A, clip(rho, 1-low, 1+high) A)`.

    Different bounds are DAPO's clip-higher. `dual` c > 1 bounds the loss at `-c A` where A < 0 (Ye et al. 2020,
    eq. 5): without it a large ratio on a bad token is not bounded at all.
    """

    def loss(log_ratio: Tensor, inputs: LossInputs) -> LossOutput:
        ratio, advantage = bounded_exp(log_ratio), inputs.advantage
        plain = -advantage * ratio
        bounded = -advantage * ratio.clamp(1.0 - low, 1.0 + high)
        value = torch.maximum(plain, bounded)
        if dual is not None:
            value = torch.where(advantage < 0, torch.minimum(value, -advantage * dual), value)
        with torch.no_grad():
            cut = bounded > plain
            metrics = {
                "clip_fraction_high": (cut & (advantage > 0)).sum(),
                "clip_fraction_low": (cut & (advantage < 0)).sum(),
                "ratio_mean": ratio.sum(),
            }
        return LossOutput(value, metrics)

    return loss


def reinforce() -> Surrogate:
    """`-A log pi`: the plain policy gradient, no ratio and no trust region."""

    def loss(log_ratio: Tensor, inputs: LossInputs) -> LossOutput:
        return LossOutput(-inputs.advantage * inputs.logprobs)

    return loss


def negative_log_likelihood() -> Surrogate:
    """`-log pi`: supervised fine-tuning; the advantage is not looked at."""

    def loss(log_ratio: Tensor, inputs: LossInputs) -> LossOutput:
        return LossOutput(-inputs.logprobs)

    return loss
