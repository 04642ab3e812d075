"""Intervals for a score and for the difference of two, with the task as the unit that varies.

Attempts at one task are not independent: they count for what the spread between tasks says they are worth. Equal
results give equal intervals; nothing is drawn at random.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from agentrl.errors import InvalidDataError
from agentrl.evaluation.signflip import sign_flip_p

Doubles = npt.NDArray[np.float64]
Attempts = Mapping[str, Sequence[float]]
"Per task the scores of its attempts."

PRIOR = 1 / 8
"Squares that half a task which always ends the same way, at an even rate, adds to what the tasks vary by."


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
    "Two-sided, of `sign_flip_p`."
    spread: float
    "Standard deviation of the difference at one task, as the interval has it."
    better: tuple[str, ...]
    "Tasks with a higher mean in B."
    worse: tuple[str, ...]

    def points(self) -> str:
        i = self.interval
        p = "p<0.001" if self.p_value < 0.001 else f"p={self.p_value:.3f}"
        return f"{100 * i.value:+.1f} points [{100 * i.low:+.1f}, {100 * i.high:+.1f}] {p}"

    def tasks_to_settle(self, *, power: float = 0.8, level: float = 0.05) -> int | None:
        """How many tasks, these included, show a difference of this size with this chance; None where there is none.

        n = ((z_(1 - level/2) + z_power) spread / difference)^2: the normal approximation, at as many attempts a task.
        """
        if self.interval.value == 0:
            return None
        normal = NormalDist()
        reach = normal.inv_cdf(1 - level / 2) + normal.inv_cdf(power)
        return math.ceil((reach * self.spread / self.interval.value) ** 2)


def wilson(successes: int, attempts: int, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for a proportion of independent attempts (Wilson 1927)."""
    if not 0 <= successes <= attempts or attempts == 0:
        raise InvalidDataError(f"{successes} successes of {attempts} attempts is not a proportion.")
    share = successes / attempts
    low, high = _wilson(np.float64(share), np.float64(attempts), confidence)
    return Interval(share, float(low), float(high), attempts)


def score_interval(attempts: Attempts, *, confidence: float = 0.95) -> Interval:
    """Mean over tasks of the mean over attempts; keys are task ids.

    Scores from 0 to 1 get `score_bounds`: for one 0-or-1 attempt per task that is Wilson's interval. Any other number
    gets Student's interval of the task means. Of a single task the attempts are the unit: then the interval is about
    that task. A single number outside 0 to 1 has no spread, and both bounds are the number.
    """
    if not attempts or not all(len(scores) for scores in attempts.values()):
        raise InvalidDataError("there is no attempt to score.")
    if len(attempts) == 1:
        (scores,) = attempts.values()
        attempts = {str(number): [score] for number, score in enumerate(scores)}
    means = task_means(attempts)
    value = float(means.mean())
    if _are_shares(attempts):
        low, high = score_bounds(means, floor=_floor(attempts), confidence=confidence)
    else:
        low, high = _student(means, confidence)
    return Interval(value, float(low), float(high), len(means))


def paired_difference(before: Attempts, after: Attempts, *, confidence: float = 0.95) -> PairedDifference:
    """`after - before` per task, for the tasks in both. Scores from 0 to 1 get `paired_bounds`.

    Any others are compared as `paired_measure` does. Raises `InvalidDataError` where no task is in both.
    """
    before, after = _shared(before, after)
    if not (_are_shares(before) and _are_shares(after)):
        return paired_measure(before, after, confidence=confidence)
    first, last, floors = task_means(before), task_means(after), (_floor(before), _floor(after))
    _, variance = _paired_moments(first, last, floors)
    low, high = paired_bounds(first, last, floors=floors, confidence=confidence)
    p_value = sign_flip_p(last - first, _lattice(before, after))
    return _difference(before, after, (float(low), float(high)), p_value, math.sqrt(float(variance)))


def paired_measure(before: Attempts, after: Attempts, *, confidence: float = 0.95) -> PairedDifference:
    """As `paired_difference`, of numbers that are no scores (tokens, seconds, cost): Student's interval."""
    before, after = _shared(before, after)
    differences = task_means(after) - task_means(before)
    low, high = _student(differences, confidence)
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    return _difference(before, after, (float(low), float(high)), sign_flip_p(differences, None), spread)


def score_bounds(means: Doubles, *, floor: float, confidence: float = 0.95) -> tuple[Doubles, Doubles]:
    """Wilson's interval for as many attempts as the tasks are worth; `means` is [..., tasks], from 0 to 1.

    n / `design_factor` stands for the number of attempts (effective sample size: Kish 1965; in Wilson's interval: Dean
    & Pagano 2015). A bootstrap by task has no width where all tasks ended alike, and covers 67 to 90 % where few did
    not; this interval is as wide as for one attempt per task there. Coverage: `benchmarks/intervals.py`.
    """
    size = means.shape[-1] / design_factor(means, floor)
    return _wilson(means.mean(-1), size, confidence)


def paired_bounds(
    before: Doubles, after: Doubles, *, floors: tuple[float, float] = (1.0, 1.0), confidence: float = 0.95
) -> tuple[Doubles, Doubles]:
    """For the mean of `after - before`; both [..., tasks], from 0 to 1.

    The normal interval after two tasks are added, one won and one lost by the mean design factor of the two results.
    At one 0-or-1 attempt per task the two are whole flips: the interval of Bonett and Price (2012). It keeps a width
    where no task flipped.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    value = (after - before).mean(-1)
    centre, variance = _paired_moments(before, after, floors)
    half = z * np.sqrt(variance / (before.shape[-1] + 2))
    low, high = np.maximum(centre - half, -1.0), np.minimum(centre + half, 1.0)
    return np.minimum(low, value), np.maximum(high, value)


def design_factor(means: Doubles, floor: float) -> Doubles:
    """How the tasks vary, as a part of how they would with one 0-or-1 attempt each; `means` is [..., tasks].

    1 where attempts at a task all end alike, 1/m where m attempts are independent: no less than `floor`. `PRIOR` joins
    numerator and denominator, for a few tasks say little of how alike their attempts are.
    """
    share = means.mean(-1)
    squares = ((means - share[..., None]) ** 2).sum(-1)
    found: Doubles = (squares + PRIOR) / ((means.shape[-1] - 1) * share * (1 - share) + PRIOR)
    return np.clip(found, floor, 1.0)


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


def task_means(attempts: Attempts) -> Doubles:
    return np.array([np.mean(attempts[task]) for task in sorted(attempts)], np.float64)


def student_quantile(probability: float, freedom: int) -> float:
    """Of Student's t: exact at 1 and 2 degrees of freedom, above that by expansion in 1/freedom, within 0.2 %.

    Abramowitz & Stegun 1964, 26.7.5.
    """
    beyond = probability - 0.5
    if freedom == 1:
        return math.tan(math.pi * beyond)
    if freedom == 2:
        return 2 * beyond * math.sqrt(2 / (1 - 4 * beyond**2))
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    series: float = sum(term / freedom**power for power, term in enumerate(terms, start=1))
    return z + series


def _wilson(share: Doubles | np.float64, size: Doubles | np.float64, confidence: float) -> tuple[Doubles, Doubles]:
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    spread = 1 + z * z / size
    middle = (share + z * z / (2 * size)) / spread
    half = z * np.sqrt(share * (1 - share) / size + z * z / (4 * size**2)) / spread
    # At 0 and at 1 rounding would put the bound a hair on the wrong side of the share.
    low = np.minimum(share, np.maximum(0.0, middle - half))
    return low, np.maximum(share, np.minimum(1.0, middle + half))


def _paired_moments(before: Doubles, after: Doubles, floors: tuple[float, float]) -> tuple[Doubles, Doubles]:
    """Mean and variance per task of the differences with the two that are added."""
    differences = after - before
    size = differences.shape[-1] + 2
    added = (design_factor(before, floors[0]) + design_factor(after, floors[1])) / 2
    centre = differences.sum(-1) / size
    return centre, ((differences**2).sum(-1) + 2 * added**2) / size - centre**2


def _shared(before: Attempts, after: Attempts) -> tuple[Attempts, Attempts]:
    shared = sorted(before.keys() & after.keys())
    if not shared:
        raise InvalidDataError("the two results share no task; compare results of one suite.")
    return {task: before[task] for task in shared}, {task: after[task] for task in shared}


def _difference(
    before: Attempts, after: Attempts, bounds: tuple[float, float], p_value: float, spread: float
) -> PairedDifference:
    differences = task_means(after) - task_means(before)
    moved = list(zip(sorted(before), differences, strict=True))
    return PairedDifference(
        interval=Interval(float(differences.mean()), *bounds, len(differences)),
        p_value=p_value,
        spread=spread,
        better=tuple(task for task, difference in moved if difference > 0),
        worse=tuple(task for task, difference in moved if difference < 0),
    )


def _student(values: Doubles, confidence: float) -> tuple[Doubles, Doubles]:
    if len(values) == 1:
        return values[0], values[0]
    half = student_quantile(0.5 + confidence / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return values.mean() - half, values.mean() + half


def _are_shares(attempts: Attempts) -> bool:
    return all(0.0 <= score <= 1.0 for scores in attempts.values() for score in scores)


def _floor(attempts: Attempts) -> float:
    """The least design factor: that of independent attempts where all are 0 or 1, none where credit is partial."""
    if not all(score in (0.0, 1.0) for scores in attempts.values() for score in scores):
        return 0.0
    return float(np.mean([1 / len(scores) for scores in attempts.values()]))


def _lattice(*results: Attempts) -> int | None:
    """What makes whole numbers of all means of 0-or-1 attempts; None where credit is partial."""
    if not all(score in (0.0, 1.0) for attempts in results for scores in attempts.values() for score in scores):
        return None
    return math.lcm(*(len(scores) for attempts in results for scores in attempts.values()))


def _check_draw(attempts: int, successes: int, k: int) -> None:
    if not (0 <= successes <= attempts and 1 <= k <= attempts):
        raise InvalidDataError(
            f"k = {k} of {attempts} attempts with {successes} successes: k is at least 1 and at most the attempts; "
            "play more attempts a task or ask for a smaller k."
        )
