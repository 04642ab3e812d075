"""Selections (stage S6): which tokens, steps or trajectories of an update are trained on, in numpy.

Rule: a selection is 1 or 0 per token and is made among all tokens of the update, never of a micro-batch.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from agentrl.batch import Bools, Doubles, UpdateColumns
from agentrl.losses.weights import segment_mean
from agentrl.types import JSON, Floats


@dataclass(frozen=True, slots=True)
class CovarianceTop:
    """The tokens whose advantage and log-probability vary together most: where KL-Cov acts (Cui et al. 2025)."""

    share: float = 2e-4

    def __call__(self, update: UpdateColumns) -> Floats:
        return _only(_top(covariance(update), self.share), len(update))


@dataclass(frozen=True, slots=True)
class CovarianceClip:
    """Drops a random few of the tokens of high covariance (Clip-Cov, Cui et al. 2025).

    Candidates have a covariance strictly between `lowest` and `highest` and are not cut by the surrogate's own clip
    (ratios outside [1-low, 1+high]). The choice is a function of the update: a rerun drops the same tokens.
    """

    share: float = 2e-4
    lowest: float = 1.0
    highest: float = 5.0
    low: float = 0.2
    high: float = 0.2

    def __call__(self, update: UpdateColumns) -> Floats:
        value = covariance(update)
        ratio = np.exp(np.clip(update.logprobs - update.proximal_logprobs, -20.0, 20.0))
        good, bad = update.advantage > 0, update.advantage < 0
        cut = (good & (ratio > 1.0 + self.high)) | (bad & (ratio < 1.0 - self.low))
        candidates = np.flatnonzero((value > self.lowest) & (value < self.highest) & ~cut)
        count = min(_count(len(update), self.share), len(candidates))
        seed = zlib.crc32(update.logprobs.tobytes())
        weight = np.ones(len(update), np.float32)
        weight[np.random.default_rng(seed).choice(candidates, count, replace=False)] = 0.0
        return weight


@dataclass(frozen=True, slots=True)
class HighEntropy:
    """The `share` of tokens with the highest entropy (Wang et al. 2025, "Beyond the 80/20 rule")."""

    share: float = 0.2

    def __call__(self, update: UpdateColumns) -> Floats:
        if not len(update):
            return np.ones(0, np.float32)
        return (update.entropy >= np.quantile(update.entropy, 1.0 - self.share)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class EntropySteps:
    """The `share` of each task's steps with the highest mean entropy (DART-GUI, 2025).

    The source leaves open among which steps the share is taken; here it is the task's group, and at least one is kept.
    """

    share: float = 0.8

    def __call__(self, update: UpdateColumns) -> Floats:
        rows, first, inverse = np.unique(update.columns.row, return_index=True, return_inverse=True)
        entropy = segment_mean(update.entropy, inverse.reshape(-1))[first]
        keep = _top_of_each(entropy, update.table.group[rows], self.share)
        return keep[inverse.reshape(-1)].astype(np.float32)


@dataclass(slots=True)
class AdvantageEntropy:
    """The `share` of tokens with the largest `|A| H` (D3S), more of them with every update.

    The share rises linearly to 1 over `relax` updates; 0 keeps it. The paper leaves share and schedule open.
    """

    share: float = 0.2
    relax: int = 0
    updates: int = field(default=0, init=False)
    "Seen so far."

    def observe(self, update: UpdateColumns) -> None:
        self.updates += 1

    def __call__(self, update: UpdateColumns) -> Floats:
        done = min(max(self.updates - 1, 0) / self.relax, 1.0) if self.relax else 0.0
        share = self.share + (1.0 - self.share) * done
        return _only(_top(np.abs(update.advantage) * update.entropy, share), len(update))

    def state(self) -> JSON:
        return {"updates": self.updates}

    def restore(self, state: JSON) -> None:
        self.updates = int(state["updates"])


@dataclass(frozen=True, slots=True)
class UnlikelyBad:
    """The bad tokens (A < 0) among the `share` of the update's tokens with the lowest probability (Lp-Reg)."""

    share: float = 0.01

    def __call__(self, update: UpdateColumns) -> Floats:
        if not len(update):
            return np.ones(0, np.float32)
        rare = update.logprobs <= np.quantile(update.logprobs, self.share)
        return (rare & (update.advantage < 0)).astype(np.float32)


def covariance(update: UpdateColumns) -> Doubles:
    """[n] `(A - mean A)(log pi - mean log pi)`, means over the update (Cui et al. 2025)."""
    advantage, logprobs = update.advantage.astype(np.float64), update.logprobs.astype(np.float64)
    if not len(update):
        return advantage
    together: Doubles = (advantage - advantage.mean()) * (logprobs - logprobs.mean())
    return together


def _count(size: int, share: float) -> int:
    return min(max(int(share * size), 1), size)


def _top(values: Doubles | Floats, share: float) -> npt.NDArray[np.int64]:
    return np.argsort(-values, kind="stable")[: _count(len(values), share)]


def _only(chosen: npt.NDArray[np.int64], size: int) -> Floats:
    weight = np.zeros(size, np.float32)
    weight[chosen] = 1.0
    return weight


def _top_of_each(values: Doubles, group: npt.NDArray[np.int32], share: float) -> Bools:
    """The highest `share` of each group, rounded up."""
    order = np.lexsort((-values, group))
    size = np.bincount(group)
    start = np.cumsum(size) - size
    rank = np.empty(len(values), np.int64)
    rank[order] = np.arange(len(values)) - start[group[order]]
    kept: Bools = rank < np.ceil(share * size)[group]
    return kept
