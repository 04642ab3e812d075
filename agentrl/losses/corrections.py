"""Corrections for the gap between the policy that sampled and the one that the ratio is taken against.

Rule: a correction is detached, and 1 where both policies are one (lag 0, equal kernels). A token whose behavior
log-probability is missing (NaN) counts as without a gap. Rejected tokens get 0 and stay in the denominators.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from agentrl.batch import UpdateColumns
from agentrl.losses.objective import Correction, LossInputs, bounded_exp
from agentrl.losses.segments import REDUCTIONS, Level
from agentrl.types import Floats

Estimator = Literal["k1", "k2", "k3"]
Reduction = Literal["mean", "sum", "max"]


def truncated(*, high: float = 2.0, level: Level = "token") -> Correction:
    """Truncated importance sampling: `min(pi_prox / pi_behavior, high)` (TIS).

    Above the level of tokens the ratio is the product over the step or trajectory, which long ones saturate.
    """

    def weight(inputs: LossInputs) -> Tensor:
        return importance(inputs, level).clamp(max=high)

    return weight


def masked(*, low: float = 0.5, high: float = 2.0, level: Level = "token") -> Correction:
    """The same weight, but what lies outside [low, high] is dropped (MIS; per token IcePop)."""

    def weight(inputs: LossInputs) -> Tensor:
        value = importance(inputs, level)
        return torch.where((value >= low) & (value <= high), value, torch.zeros_like(value))

    return weight


def band(
    *, low: float = 0.99, high: float = 1.01, level: Level = "trajectory", reduction: Reduction = "mean"
) -> Correction:
    """1 where the reduced log ratio lies within `[ln low, ln high]`, else 0.

    "mean" is geometric rejection sampling: unlike a product it treats long and short trajectories alike.
    """

    def weight(inputs: LossInputs) -> Tensor:
        value = _reduced(log_gap(inputs), inputs, level, reduction)
        return ((value >= math.log(low)) & (value <= math.log(high))).to(value.dtype)

    return weight


def divergence_bound(
    *, high: float, estimator: Estimator = "k3", level: Level = "trajectory", reduction: Reduction = "mean"
) -> Correction:
    """1 where the reduced estimate of `KL(behavior || proximal)`, nats, is at most `high`, else 0.

    With d the log ratio: k1 -d, k2 d^2 / 2, k3 e^d - 1 - d.
    """

    def weight(inputs: LossInputs) -> Tensor:
        gap = log_gap(inputs)
        estimate = {"k1": -gap, "k2": gap**2 / 2, "k3": bounded_exp(gap) - 1 - gap}[estimator]
        return (_reduced(estimate, inputs, level, reduction) <= high).to(gap.dtype)

    return weight


def veto(*, low: float = 1e-4, high: float = math.inf, level: Level = "trajectory") -> Correction:
    """0 for everything of a step or trajectory that holds a token with a ratio outside [low, high], else 1."""

    def weight(inputs: LossInputs) -> Tensor:
        gap = log_gap(inputs)
        broken = ((gap < math.log(low)) | (gap > math.log(high))).to(gap.dtype)
        return 1.0 - _reduced(broken, inputs, level, "max")

    return weight


def product(*parts: Correction) -> Correction:
    def weight(inputs: LossInputs) -> Tensor:
        value = torch.ones_like(inputs.proximal_logprobs)
        for part in parts:
            value = value * part(inputs)
        return value

    return weight


@dataclass(frozen=True, slots=True)
class Normalised:
    """A `TokenWeight`: a correction divided by its mean over the whole update, after its truncation.

    `level` says over what the mean is taken: every token, or every step or trajectory, has one vote. It lowers the
    variance and biases the size of the step; an update whose weights are all 0 keeps them.
    """

    correction: Correction
    level: Level = "token"

    def __call__(self, update: UpdateColumns) -> Floats:
        value: Floats = self.correction(as_inputs(update)).numpy()
        votes = value
        if self.level != "token":
            ids = update.columns.row if self.level == "step" else update.trajectory
            votes = value[np.unique(ids, return_index=True)[1]]
        mean = float(votes.mean(dtype=np.float64)) if len(votes) else 0.0
        return value / np.float32(mean) if mean > 0 else value


def importance(inputs: LossInputs, level: Level = "token") -> Tensor:
    """[n] `pi_prox / pi_behavior` of the token, or the product over its step or trajectory; detached, finite."""
    return bounded_exp(_reduced(log_gap(inputs), inputs, level, "sum"))


def log_gap(inputs: LossInputs) -> Tensor:
    """[n] `log pi_prox - log pi_behavior`, nats, detached."""
    gap = (inputs.proximal_logprobs - inputs.behavior_logprobs).detach()
    return torch.nan_to_num(gap, nan=0.0)


def as_inputs(update: UpdateColumns) -> LossInputs:
    """An update as one micro-batch without a gradient."""
    trajectory = np.unique(update.trajectory, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return LossInputs(
        logprobs=torch.from_numpy(update.logprobs),
        behavior_logprobs=torch.from_numpy(update.columns.behavior_logprobs),
        proximal_logprobs=torch.from_numpy(update.proximal_logprobs),
        advantage=torch.from_numpy(update.advantage),
        row=torch.from_numpy(update.columns.row.astype(np.int64)),
        trajectory=torch.from_numpy(trajectory),
        entropy=torch.from_numpy(update.entropy),
        index=torch.from_numpy(update.table.index[update.columns.row].astype(np.int64)),
    )


def _reduced(values: Tensor, inputs: LossInputs, level: Level, reduction: Reduction) -> Tensor:
    if level == "token":
        return values
    reduce = REDUCTIONS[reduction]
    return reduce(values, inputs.row if level == "step" else inputs.trajectory)
