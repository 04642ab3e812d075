"""Token credits (stage S4): advantages per token that need the policy's own numbers, in numpy.

Rule: a credit is decided on the whole update, from the weights that it starts from, and carries no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agentrl.batch import UpdateColumns
from agentrl.errors import TrainingError
from agentrl.losses.weights import sampler_gap
from agentrl.types import Floats


@dataclass(frozen=True, slots=True)
class Distillation:
    """On-policy distillation: what a teacher thinks of each sampled token, as its advantage.

    `scale (log pi_T - log pi_ref) - (log pi - log pi_ref)`, added to `reward` times the advantage that was. At scale 1
    that is `log pi_T - log pi`, the negated sample of the reverse KL, and needs no reference; above 1 it extrapolates
    beyond the teacher (G-OPD, ExOPD). `bound` cuts it to [-bound, bound], nats. Sources leave all three open.
    """

    scale: float = 1.0
    reward: float = 0.0
    bound: float | None = None

    def __call__(self, update: UpdateColumns) -> Floats:
        if update.teacher_logprobs is None:
            raise TrainingError("distillation needs teacher log-probabilities; set needs_teacher on the objective.")
        gain = update.teacher_logprobs - update.logprobs
        if self.scale != 1.0:
            if update.reference_logprobs is None:
                raise TrainingError(
                    f"distillation at scale {self.scale:g} needs reference log-probabilities; set needs_reference on "
                    "the objective, or scale to 1."
                )
            gain = gain + (self.scale - 1.0) * (update.teacher_logprobs - update.reference_logprobs)
        if self.bound is not None:
            gain = np.clip(gain, -self.bound, self.bound)
        return (self.reward * update.advantage + gain).astype(np.float32)


def untaught(update: UpdateColumns) -> Floats:
    """The advantage that was; 0 on tokens of turns that a teacher took, which say nothing about the policy's own."""
    return np.where(update.taught, np.float32(0), update.advantage).astype(np.float32)


@dataclass(frozen=True, slots=True)
class OffPolicyBaseline:
    """The baseline of least variance under importance weights (VCPO): `b = sum w^2 g^2 R / sum w^2 g^2` in each group.

    w is the trajectory's weight pi / mu, cut at `high`; g^2, the squared norm of its gradient, is estimated by
    `sum_t (1 - pi_t)^2`, a lower bound of that of the logits. Any constant already taken off R falls out, so the
    advantages of one trajectory must be equal and without a scale of the group.
    """

    high: float = 2.0

    def __call__(self, update: UpdateColumns) -> Floats:
        members, first, inverse = np.unique(update.trajectory, return_index=True, return_inverse=True)
        owner = inverse.reshape(-1)
        size = len(members)
        weight = np.exp(np.clip(np.bincount(owner, weights=sampler_gap(update), minlength=size), -20.0, 20.0))
        norm = np.bincount(owner, weights=(1.0 - np.exp(update.logprobs.astype(np.float64))) ** 2, minlength=size)
        share = np.minimum(weight, self.high) ** 2 * norm
        group = update.table.group[update.columns.row][first]
        value = update.advantage[first].astype(np.float64)
        total = np.bincount(group, weights=share)
        baseline = np.bincount(group, weights=share * value) / np.where(total > 0, total, 1.0)
        centred: Floats = (update.advantage - baseline[group][owner]).astype(np.float32)
        return centred
