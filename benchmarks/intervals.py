"""Whether the intervals of an evaluation cover the truth: simulation over clustered results.

    python benchmarks/intervals.py [--quick] [--out benchmarks/results/intervals.json]

Score: 20 to 200 tasks, 1 to 8 attempts each, success rates from 0.05 to 0.95, correlation of a task's attempts from 0
to 0.8. Coverage of the 95 % interval over rates drawn evenly, and at each single rate, where whole numbers of tasks
make any interval's coverage jump (Brown, Cai & DasGupta 2001). Difference: the same sizes, where a tenth or all of the
tasks have another chance than before. Of the sign-flip test the share of results without a difference that it calls
different at 5 %; of the number of tasks that settles a difference with a chance of 80 %, how often it does.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
from conditions import conditions
from support.clusters import Doubles, Shape, pairs, results
from support.results import Verdict, finish, options

from agentrl.evaluation.signflip import sign_flip_p
from agentrl.evaluation.statistics import paired_bounds, paired_difference, score_bounds

TASKS, ATTEMPTS, CORRELATIONS = (20, 50, 100, 200), (1, 2, 4, 8), (0.0, 0.2, 0.4, 0.6, 0.8)
RATES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95)
PAIRS = ((0.05, 0.05), (0.2, 0.1), (0.5, 0.0), (0.5, 0.2), (0.7, 0.25), (0.9, 0.0))
MOVED = (0.1, 1.0)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--repetitions", type=int, default=4000)
    chosen = parser.parse_args()
    before = conditions()
    repetitions = 200 if chosen.quick else chosen.repetitions
    rng = np.random.default_rng(0)
    single, at_rate = scores(rng, repetitions)
    paired = differences(rng, repetitions)
    errors = first_kind(rng, repetitions // 2)
    power = settled(rng, repetitions // 4)
    measured: dict[str, Any] = {
        "score_over_rates": single,
        "score_at_a_rate": spread(at_rate),
        "difference": spread(paired),
        "first_kind": errors,
        "power": power,
    }
    inside = measured["score_at_a_rate"]["inside"]
    verdicts = [
        Verdict("least coverage of a score, over rates", min(single.values()), "at least", 0.93),
        Verdict("most coverage of a score, over rates", max(single.values()), "at most", 0.97),
        Verdict("part of the settings in 0.93 to 0.97, at single rates", inside, "at least", 0.9, ""),
        Verdict("least coverage of a difference", min(paired.values()), "at least", 0.9),
        Verdict("most errors of the first kind at 5 %", max(errors.values()), "at most", 0.07),
        Verdict("least power where 0.8 was said", min(power.values()), "at least", 0.7),
    ]
    finish(chosen, before, measured, verdicts)


def shapes() -> list[Shape]:
    """One attempt has nothing to be correlated with."""
    every = itertools.product(TASKS, ATTEMPTS, CORRELATIONS)
    return [Shape(*found) for found in every if found[1] > 1 or found[2] == 0.0]


def scores(rng: np.random.Generator, repetitions: int) -> tuple[dict[str, float], dict[str, float]]:
    """Coverage over rates drawn evenly, and at each single rate."""
    over, at = {}, {}
    for shape in shapes():
        over[name(shape)] = covered(rng, shape, rng.uniform(0.05, 0.95, repetitions))
        for rate in RATES:
            at[f"{name(shape)} rate={rate:g}"] = covered(rng, shape, np.full(repetitions, rate))
    return over, at


def covered(rng: np.random.Generator, shape: Shape, rate: Doubles) -> float:
    low, high = score_bounds(results(rng, shape, rate), floor=1 / shape.attempts)
    return round(float(((low <= rate) & (rate <= high)).mean()), 4)


def differences(rng: np.random.Generator, repetitions: int) -> dict[str, float]:
    found = {}
    for shape in paired_shapes():
        floors = (1 / shape.attempts, 1 / shape.attempts)
        for (rate, gain), moved in itertools.product(PAIRS, MOVED):
            first, last = pairs(rng, shape, repetitions, rate=rate, gain=gain, moved=moved)
            low, high = paired_bounds(first, last, floors=floors)
            cover = float(((low <= gain + 1e-12) & (gain - 1e-12 <= high)).mean())
            found[f"{name(shape)} rate={rate:g} gain={gain:g} moved={moved:g}"] = round(cover, 4)
    return found


def first_kind(rng: np.random.Generator, repetitions: int) -> dict[str, float]:
    """How often the test at 5 % calls two results different whose tasks all have the chances they had."""
    found = {}
    for tasks, attempts in itertools.product((20, 100), (1, 4, 8)):
        shape = Shape(tasks, attempts, 0.4)
        first, last = pairs(rng, shape, repetitions, rate=0.4, gain=0.0, moved=0.0)
        p = [sign_flip_p(difference, shape.attempts) for difference in last - first]
        found[name(shape)] = round(float((np.array(p) < 0.05).mean()), 4)
    return found


def settled(rng: np.random.Generator, repetitions: int) -> dict[str, float]:
    """How often as many tasks show the difference as are said to be needed, where spread and difference are known."""
    power = {}
    for attempts, gain in itertools.product((1, 4), (0.1, 0.2)):
        shape = Shape(4000, attempts, 0.4)
        first, last = pairs(rng, shape, 1, rate=0.4, gain=gain, moved=0.3)
        found = paired_difference(_played(first[0], attempts), _played(last[0], attempts))
        needed = replace(found, interval=replace(found.interval, value=gain)).tasks_to_settle() or 0
        first, last = pairs(rng, Shape(needed, attempts, 0.4), repetitions, rate=0.4, gain=gain, moved=0.3)
        p = [sign_flip_p(difference, attempts) for difference in last - first]
        power[f"attempts={attempts} gain={gain:g} tasks={needed}"] = round(float((np.array(p) < 0.05).mean()), 4)
    return power


def paired_shapes() -> list[Shape]:
    return [Shape(*found) for found in itertools.product(TASKS, ATTEMPTS, CORRELATIONS[1::2] + CORRELATIONS[-1:])]


def name(shape: Shape) -> str:
    return f"tasks={shape.tasks} attempts={shape.attempts} correlation={shape.correlation:g}"


def spread(coverage: dict[str, float]) -> dict[str, Any]:
    """Shares of the settings, and the settings that lie furthest out."""
    values = np.array(list(coverage.values()))
    ordered = sorted(coverage.items(), key=lambda item: item[1])
    return {
        "settings": len(values),
        "mean": round(float(values.mean()), 4),
        "inside": round(float(((values >= 0.93) & (values <= 0.97)).mean()), 4),
        "below": round(float((values < 0.93).mean()), 4),
        "above": round(float((values > 0.97).mean()), 4),
        "least": dict(ordered[:8]),
        "most": dict(ordered[-4:]),
    }


def _played(means: Doubles, attempts: int) -> dict[str, list[float]]:
    wins = np.rint(means * attempts).astype(int)
    return {str(task): [1.0] * won + [0.0] * (attempts - won) for task, won in enumerate(wins)}


if __name__ == "__main__":
    main()
