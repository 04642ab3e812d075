"""Gates (stage S11): how far one optimiser update goes, decided on the whole of it.

Rule: a gate returns a factor of the learning rate, 0 or more; 0 takes no step, not even one of momentum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agentrl.batch import Doubles, UpdateColumns
from agentrl.losses.objective import Gate
from agentrl.losses.segments import Level
from agentrl.losses.weights import sampler_gap


@dataclass(frozen=True, slots=True)
class EffectiveSampleSize:
    """`sqrt(ESS / B)` with `ESS = (sum w)^2 / sum w^2` of the importance weights pi / mu (VCPO).

    B counts the units of `level`; above tokens w is the product over the unit. 1 where all weights are equal,
    `1 / sqrt(B)` where one unit is all that counts, which is soon so for long trajectories.
    """

    level: Level = "trajectory"

    def __call__(self, update: UpdateColumns) -> float:
        share = effective_share(update, self.level)
        return float(np.sqrt(share))


@dataclass(frozen=True, slots=True)
class KlEarlyStop:
    """0 where the mean K3 of proximal and current policy exceeds `limit`, nats: further updates of a batch stop."""

    limit: float = 0.02

    def __call__(self, update: UpdateColumns) -> float:
        gap = np.clip(update.logprobs.astype(np.float64) - update.proximal_logprobs, -20.0, 20.0)
        mean = float(np.mean(np.exp(gap) - 1.0 - gap)) if len(update) else 0.0
        return 0.0 if mean > self.limit else 1.0


def no_signal(update: UpdateColumns) -> float:
    """0 where no token has both an advantage and a weight, so that regularisers alone do not train."""
    return float(np.any(update.advantage * update.weight))


@dataclass(frozen=True, slots=True)
class AllOf:
    """The product of gates."""

    gates: tuple[Gate, ...]

    def __call__(self, update: UpdateColumns) -> float:
        return float(np.prod([gate(update) for gate in self.gates]))


def effective_share(update: UpdateColumns, level: Level) -> float:
    """`ESS / B`, in (0, 1]; 1 for an update without tokens."""
    gap: Doubles = sampler_gap(update)
    if level != "token":
        ids = update.columns.row if level == "step" else update.trajectory
        gap = np.bincount(np.unique(ids, return_inverse=True)[1].reshape(-1), weights=gap).astype(np.float64)
    if not len(gap):
        return 1.0
    # The share does not change with a common factor, and the largest weight becomes 1.
    weight = np.exp(gap - gap.max())
    return float(weight.sum() ** 2 / (len(weight) * np.sum(weight**2)))
