"""Credit that compares whole trajectories by something other than a mean and a deviation.

Every rule gives all steps of a trajectory the same advantage, and exactly 0 to a group of equal returns unless it
whitens over the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from agentrl.batch import StepTable, TrainingBatch
from agentrl.credit.baselines import Singleton, Whitening, center, from_length_weighted_mean, relative_to_mean, whiten
from agentrl.credit.returns import outcomes, token_returns
from agentrl.credit.segments import Doubles, segment_moments
from agentrl.errors import TrainingError
from agentrl.types import Floats

_LARGEST_WEIGHT = 1e6


@dataclass(frozen=True, slots=True)
class LengthWeightedCredit:
    """Against the group's mean weighted by sampled tokens (OPO, Hao et al. 2025)."""

    singleton: Singleton = "zero"
    'Of a group of one: no credit, or "raw", its return, as the public code has it.'

    def __call__(self, table: StepTable) -> Doubles:
        found = outcomes(table)
        credit = from_length_weighted_mean(found.value, found.group, found.tokens, singleton=self.singleton)
        return credit[found.of_row]


@dataclass(frozen=True, slots=True)
class RelativeCredit:
    """The difference from the group's mean as a fraction of it (MaxRL): rare successes weigh more."""

    def __call__(self, table: StepTable) -> Doubles:
        found = outcomes(table)
        return relative_to_mean(found.value, found.group)[found.of_row]


@dataclass(frozen=True, slots=True)
class SignalScaledCredit:
    """The difference from the mean times `B / (B - M)`, M of the B trajectories in groups that tell nothing (GPG)."""

    def __call__(self, table: StepTable) -> Doubles:
        found = outcomes(table)
        moments = segment_moments(found.value, found.group, int(found.group.max(initial=-1)) + 1)
        telling = int(np.count_nonzero(~moments.constant[found.group]))
        scale = len(found.value) / max(telling, 1)
        return scale * center(found.value, found.group, scale="none")[found.of_row]


@dataclass(frozen=True, slots=True)
class BetaNormalisedCredit:
    """`(r - p) / Beta(p; 1 + a/3, 1 + b/3)`, a and b fitted by moments to the groups' means p (BNPO, Xiao et al. 2025).

    Returns are success rates in [0, 1]. Where all groups have one mean, or differ as much as a coin can, the fit
    says nothing and the density is 1. Raises `TrainingError` for a return outside [0, 1].
    """

    def __call__(self, table: StepTable) -> Doubles:
        found = outcomes(table)
        if len(found.value) and not (found.value.min() >= 0 and found.value.max() <= 1):
            raise TrainingError(
                f"BNPO reads returns as success rates from 0 to 1; this batch has returns from {found.value.min():g} "
                f"to {found.value.max():g}. Rescale the reward, or choose grpo or lite_ppo."
            )
        moments = segment_moments(found.value, found.group, int(found.group.max(initial=-1)) + 1)
        density = _beta_density(moments.mean, moments.mean[moments.count > 0])
        weight = np.minimum(1.0 / np.maximum(density, 1.0 / _LARGEST_WEIGHT), _LARGEST_WEIGHT)
        advantage: Doubles = center(found.value, found.group, scale="none") * weight[found.group]
        rows: Doubles = advantage[found.of_row]
        return rows


@dataclass(frozen=True, slots=True)
class Whitened:
    """Another rule's credit over the standard deviation of all sampled tokens of the batch (REINFORCE++).

    "whiten" subtracts the mean over tokens too, so a long trajectory weighs more in it and a group of equal returns
    gets credit; "scale" does neither.
    """

    rule: Callable[[StepTable], Doubles]
    mode: Whitening = "whiten"
    epsilon: float = 1e-8

    def __call__(self, table: StepTable) -> Doubles:
        return whiten(self.rule(table), table.length.astype(np.float64), self.mode, self.epsilon)


@dataclass(frozen=True, slots=True)
class TokenReturns:
    """A new advantage per token: its discounted return-to-go, whitened over the batch's tokens (REINFORCE++)."""

    gamma: float = 1.0
    mode: Whitening = "whiten"

    def __call__(self, batch: TrainingBatch) -> Floats:
        returns = token_returns(batch.table, batch.columns, self.gamma)
        return whiten(returns, np.ones(len(returns)), self.mode).astype(np.float32)


def _beta_density(at: Doubles, observed: Doubles) -> Doubles:
    # Unbiased, as in the public code. Of one group there is none.
    mean, variance = float(observed.mean()), float(observed.var(ddof=1)) if len(observed) > 1 else 0.0
    most = mean * (1.0 - mean)
    if not 0.0 < variance < most:
        return np.ones_like(at)
    strength = most / variance - 1.0
    alpha, beta = 1.0 + strength * mean / 3.0, 1.0 + strength * (1.0 - mean) / 3.0
    log_norm = math.lgamma(alpha) + math.lgamma(beta) - math.lgamma(alpha + beta)
    inside = np.clip(at, 1e-12, 1.0 - 1e-12)
    density: Doubles = np.exp((alpha - 1.0) * np.log(inside) + (beta - 1.0) * np.log1p(-inside) - log_norm)
    return density
