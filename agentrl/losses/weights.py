"""Token weights (stage S6) against noise and staleness, decided on a whole update, in numpy.

Rule: a weight is 0 or more and detached; 0 drops the token and leaves the denominators as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agentrl.batch import Doubles, UpdateColumns
from agentrl.types import Floats


@dataclass(frozen=True, slots=True)
class Steer:
    """Less weight where a token's step would change the entropy most (STEER).

    `w = exp(-k Omega)`, `Omega = |A / mu * pi (1 - pi) (log pi + H)|`, `k = -ln(lowest) / max(Omega_max, floor)`, so
    that weights lie in [lowest, 1]. mu is the proximal policy.
    """

    lowest: float = 0.8
    floor: float = 0.02

    def __call__(self, update: UpdateColumns) -> Floats:
        logprobs = update.logprobs.astype(np.float64)
        pi = np.exp(logprobs)
        ratio = np.exp(np.clip(logprobs - update.proximal_logprobs, -20.0, 20.0))
        change = np.abs(update.advantage * ratio * (1.0 - pi) * (logprobs + update.entropy))
        rate = -np.log(self.lowest) / max(float(change.max(initial=0.0)), self.floor)
        weight: Floats = np.exp(-rate * change).astype(np.float32)
        return weight


@dataclass(frozen=True, slots=True)
class SecondMoment:
    """Drops the tokens that moved most until the mean of `(log pi - log mu)^2` is below `limit` (M2PO).

    pi is the policy that the update starts from, mu the sampler. The one token that moved least is always kept.
    """

    limit: float = 0.04

    def __call__(self, update: UpdateColumns) -> Floats:
        moved = sampler_gap(update) ** 2
        order = np.argsort(moved, kind="stable")
        means = np.cumsum(moved[order]) / np.arange(1, len(moved) + 1)
        # The mean of the smallest k grows with k.
        kept = max(int(np.searchsorted(means, self.limit, side="left")), 1)
        weight = np.zeros(len(update), np.float32)
        weight[order[:kept]] = 1.0
        return weight


@dataclass(frozen=True, slots=True)
class OffPolicySequences:
    """Drops the bad tokens of trajectories that the policy has left (OPSM, DeepSeek-V3.2, 2025).

    A trajectory is left where its mean of `log mu - log pi` exceeds `limit`, nats; only tokens with A < 0 are dropped.
    The report leaves the limit open; 1e-4 is that of one public implementation, 0 drops all that became less likely.
    """

    limit: float = 1e-4

    def __call__(self, update: UpdateColumns) -> Floats:
        mean = segment_mean(-sampler_gap(update), update.trajectory)
        return np.where((update.advantage < 0) & (mean > self.limit), 0.0, 1.0).astype(np.float32)


def sampler_gap(update: UpdateColumns) -> Doubles:
    """[n] `log pi - log mu` of the policy that the update starts from and the sampler; 0 where that said nothing."""
    return np.nan_to_num(update.logprobs.astype(np.float64) - update.columns.behavior_logprobs, nan=0.0)


def segment_mean(values: Doubles | Floats, ids: np.ndarray[tuple[int], np.dtype[np.integer]]) -> Doubles:
    """[n] each token its segment's mean."""
    totals, counts = np.bincount(ids, weights=values), np.bincount(ids)
    means: Doubles = (totals / np.maximum(counts, 1))[ids]
    return means


def taught(update: UpdateColumns) -> Floats:
    """1 on tokens of turns that a teacher took or an expert gave, 0 on the policy's own."""
    return update.taught.astype(np.float32)
