"""A better-behaved distribution made of the policy itself, and the pull towards it (Lp-Reg, Huang et al. 2025).

Rule: the proxy is the policy without the tokens below `kappa` times the likeliest one, renormalised and detached. Then
`KL(proxy || pi)` is `-log` of the probability that the policy gives to the kept tokens, in value and in gradient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from agentrl.errors import TrainingError
from agentrl.losses.objective import LossInputs, Statistic


def kept_mass(*, kappa: float = 0.02) -> Statistic:
    """From logits [m, vocabulary] to [m, 2]: `KL(proxy || pi)` in nats, and the lowest log-probability that is kept."""

    def statistic(logits: Tensor) -> Tensor:
        logprobs = torch.log_softmax(logits, -1)
        floor = logprobs.detach().amax(-1) + math.log(kappa)
        outside = logprobs.detach() < floor[:, None]
        distance = -torch.logsumexp(logprobs.masked_fill(outside, float("-inf")), -1)
        return torch.stack([distance, floor], -1)

    return statistic


def towards_proxy(inputs: LossInputs) -> Tensor:
    """`KL(proxy || pi)` where the sampled token is itself in the proxy, else 0: noise is not protected."""
    if inputs.statistic is None:
        raise TrainingError(
            "the pull towards the proxy needs its statistic; set statistic = kept_mass() on the objective."
        )
    distance, floor = inputs.statistic.unbind(-1)
    return torch.where(inputs.logprobs.detach() >= floor.detach(), distance, 0.0)
