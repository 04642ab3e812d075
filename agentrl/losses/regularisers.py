"""Regularisers: terms added to the surrogate, per token."""

from __future__ import annotations

import torch
from torch import Tensor

from agentrl.errors import TrainingError
from agentrl.losses.objective import LossInputs


def entropy_bonus(inputs: LossInputs) -> Tensor:
    """`-H` in nats: with a positive coefficient the policy is kept from collapsing."""
    if inputs.entropy is None:
        raise TrainingError("the entropy bonus needs entropies; set needs_entropy on the objective.")
    return -inputs.entropy


def kl_to_reference(inputs: LossInputs) -> Tensor:
    """K3, `e^{-d} - 1 + d` with `d = log pi - log pi_ref` (Schulman 2020): never negative, low variance."""
    if inputs.reference_logprobs is None:
        raise TrainingError("the KL term needs reference log-probabilities; set needs_reference on the objective.")
    difference = inputs.logprobs - inputs.reference_logprobs
    return torch.exp((-difference).clamp(-20.0, 20.0)) - 1.0 + difference
