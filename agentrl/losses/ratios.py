"""Ratios: over how many tokens the change of the policy is measured (stage S7).

Rule: each returns [n] log ratios of the form `sg(aggregate) + log pi - sg(log pi)`, nats: the value of its
granularity, and a gradient per token, so that every surrogate works with every ratio. Tokens that the policy did not
sample are not among the n, so they are in no mean, product or position.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentrl.losses.objective import LossInputs
from agentrl.losses.objective import token_ratio as token_ratio
from agentrl.losses.segments import running_min, running_sum, segment_mean, segment_sum


def sequence_geo(inputs: LossInputs) -> Tensor:
    """Geometric mean over the trajectory (GSPO-token, Zheng et al. 2025, eq. 13 and 14).

    Where all tokens of a trajectory have one advantage and one scale, its gradient is that of `sequence_geo_joint`.
    """
    return _through(segment_mean(_gap(inputs), inputs.trajectory), inputs)


def sequence_geo_joint(inputs: LossInputs) -> Tensor:
    """Geometric mean over the trajectory with the gradient of the mean itself (GSPO, Zheng et al. 2025, eq. 7)."""
    return segment_mean(inputs.logprobs - inputs.proximal_logprobs, inputs.trajectory)


def step_geo(inputs: LossInputs) -> Tensor:
    """Geometric mean over the step: GSPO for many turns, where one ratio for a whole episode would couple them all."""
    return _through(segment_mean(_gap(inputs), inputs.row), inputs)


def sequence_prod(inputs: LossInputs) -> Tensor:
    """Product over the trajectory: the unbiased weight, whose variance grows exponentially with its length."""
    return _through(segment_sum(_gap(inputs), inputs.trajectory), inputs)


def cumulative(inputs: LossInputs) -> Tensor:
    """Product over the trajectory up to and with the token (CTPO): the unbiased weight of a prefix."""
    return _through(running_sum(_gap(inputs), inputs.trajectory), inputs)


def prefix_min(inputs: LossInputs) -> Tensor:
    """The token's ratio times the smallest ratio before it in the trajectory; the first token's own (MinPRO)."""
    gap = _gap(inputs)
    smallest = running_min(gap, inputs.trajectory)
    before = torch.zeros_like(gap)
    before[1:] = torch.where(inputs.trajectory[1:] == inputs.trajectory[:-1], smallest[:-1], 0.0)
    return _through(gap + before, inputs)


def _gap(inputs: LossInputs) -> Tensor:
    return (inputs.logprobs - inputs.proximal_logprobs).detach()


def _through(value: Tensor, inputs: LossInputs) -> Tensor:
    return value + inputs.logprobs - inputs.logprobs.detach()
