"""Intervals for a score and for the difference of two, with the task as the unit that varies.

Attempts at one task are not independent, so resampling draws tasks, never attempts. Every function is seeded:
the same results give the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from agentrl.errors import InvalidDataError

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its two-sided interval."""

    value: float
    low: float
    high: float
    tasks: int

    def percent(self) -> str:
        return f"{100 * self.value:.1f}% [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """B minus A on the tasks that both attempted."""

    interval: Interval
    p_value: float
    "Two-sided, from random sign flips of the per-task differences."
    better: tuple[str, ...]
    "Tasks with a higher mean in B."
    worse: tuple[str, ...]

    def points(self) -> str:
        i = self.interval
        p = "p<0.001" if self.p_value < 0.001 else f"p={self.p_value:.3f}"
        return f"{100 * i.value:+.1f} points [{100 * i.low:+.1f}, {100 * i.high:+.1f}] {p}"


def wilson(successes: int, attempts: int, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for a proportion of independent attempts (Wilson 1927)."""
    if not 0 <= successes <= attempts or attempts == 0:
        raise InvalidDataError(f"{successes} successes of {attempts} attempts is not a proportion.")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / attempts
    spread = 1 + z * z / attempts
    middle = (share + z * z / (2 * attempts)) / spread
    half = z * math.sqrt(share * (1 - share) / attempts + z * z / (4 * attempts**2)) / spread
    # At 0 and at 1 rounding would put the bound a hair on the wrong side of the share.
    return Interval(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)), attempts)


def score_interval(
    attempts: Mapping[str, Sequence[float]], *, confidence: float = 0.95, resamples: int = 4000, seed: int = 0
) -> Interval:
    """Mean over tasks of the mean over attempts; keys are task ids.

    One 0-or-1 attempt per task is a proportion and gets Wilson's interval; anything else is bootstrapped by task.
    """
    if not attempts:
        raise InvalidDataError("there is no attempt to score.")
    means = task_means(attempts)
    if all(len(a) == 1 for a in attempts.values()) and np.isin(means, (0.0, 1.0)).all():
        return wilson(int(means.sum()), len(means), confidence=confidence)
    low, high = _bootstrap(means, confidence, resamples, seed)
    return Interval(float(means.mean()), low, high, len(means))


def paired_difference(
    before: Mapping[str, Sequence[float]],
    after: Mapping[str, Sequence[float]],
    *,
    confidence: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> PairedDifference:
    """`after - before` per task, for the tasks in both."""
    shared = sorted(before.keys() & after.keys())
    if not shared:
        raise InvalidDataError("the two results share no task; compare results of one suite.")
    differences = np.array([np.mean(after[t]) - np.mean(before[t]) for t in shared])
    low, high = _bootstrap(differences, confidence, resamples, seed)
    interval = Interval(float(differences.mean()), low, high, len(shared))
    better = tuple(t for t, d in zip(shared, differences, strict=True) if d > 0)
    worse = tuple(t for t, d in zip(shared, differences, strict=True) if d < 0)
    return PairedDifference(interval, _sign_flip_p(differences, resamples, seed), better, worse)


def pass_at_k(attempts: int, successes: int, k: int) -> float:
    """Chance that at least one of k attempts at a task succeeds: 1 - C(n - c, k) / C(n, k), unbiased.

    Chen et al. 2021 (arXiv:2107.03374), equation 1. Raises `InvalidDataError` where k exceeds the attempts.
    """
    _check_draw(attempts, successes, k)
    return 1.0 - math.comb(attempts - successes, k) / math.comb(attempts, k)


def pass_hat_k(attempts: int, successes: int, k: int) -> float:
    """Chance that all of k attempts at a task succeed, pass^k: C(c, k) / C(n, k), unbiased.

    Yao et al. 2024 (tau-bench, arXiv:2406.12045). Raises `InvalidDataError` where k exceeds the attempts.
    """
    _check_draw(attempts, successes, k)
    return math.comb(successes, k) / math.comb(attempts, k)


def task_means(attempts: Mapping[str, Sequence[float]]) -> Doubles:
    return np.array([np.mean(attempts[task]) for task in sorted(attempts)], np.float64)


def _bootstrap(values: Doubles, confidence: float, resamples: int, seed: int) -> tuple[float, float]:
    """Percentile interval of the mean, widened by sqrt(n / (n - 1)) for the bootstrap's narrowness at small n."""
    rng = np.random.default_rng(seed)
    n = len(values)
    means = np.array([values[rng.integers(0, n, n)].mean() for _ in range(resamples)])
    centre = values.mean()
    widen = math.sqrt(n / (n - 1)) if n > 1 else 1.0
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(centre + widen * (low - centre)), float(centre + widen * (high - centre))


def _sign_flip_p(differences: Doubles, resamples: int, seed: int) -> float:
    rng = np.random.default_rng(seed)
    observed = abs(differences.mean())
    flips = rng.choice((-1.0, 1.0), size=(resamples, len(differences)))
    extreme = np.abs((flips * differences).mean(axis=1)) >= observed - 1e-12
    return float((extreme.sum() + 1) / (resamples + 1))


def _check_draw(attempts: int, successes: int, k: int) -> None:
    if not (0 <= successes <= attempts and 1 <= k <= attempts):
        raise InvalidDataError(
            f"k = {k} of {attempts} attempts with {successes} successes: k is at least 1 and at most the attempts; "
            "play more attempts a task or ask for a smaller k."
        )
