"""Corrections for the gap between the policy that sampled and the one that the ratio is taken against.

The weight is `pi_prox / pi_behavior`, detached. Where the sampler's weights and kernels are the learner's own it
is 1; a token whose behavior log-probability is missing (NaN) gets 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentrl.losses.objective import Correction, LossInputs, bounded_exp


def truncated(*, high: float = 2.0) -> Correction:
    """Truncated importance sampling per token: `min(pi_prox / pi_behavior, high)` (TIS)."""

    def weight(inputs: LossInputs) -> Tensor:
        return importance(inputs).clamp(max=high)

    return weight


def masked(*, low: float = 0.5, high: float = 2.0) -> Correction:
    """The same weight, but a token outside [low, high] is dropped (MIS, IcePop)."""

    def weight(inputs: LossInputs) -> Tensor:
        value = importance(inputs)
        return torch.where((value >= low) & (value <= high), value, torch.zeros_like(value))

    return weight


def importance(inputs: LossInputs) -> Tensor:
    """[n] `pi_prox / pi_behavior`, detached, finite."""
    gap = (inputs.proximal_logprobs - inputs.behavior_logprobs).detach()
    return bounded_exp(torch.nan_to_num(gap, nan=0.0))
