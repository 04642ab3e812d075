"""Synthetic results whose truth is known: task means of clustered attempts, one result alone or two in pairs.

Every array is [repetitions, tasks]; a task's chance is drawn from a beta distribution whose variance is the
correlation of its attempts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shape:
    """What kind of results."""

    tasks: int
    attempts: int
    correlation: float
    "Of two attempts at one task: 0 independent, 1 all alike."


def results(rng: np.random.Generator, shape: Shape, rate: Doubles) -> Doubles:
    """Task means; `rate` [repetitions] is the true score of each repetition."""
    size = (len(rate), shape.tasks)
    chance = np.broadcast_to(rate[:, None], size)
    if shape.correlation:
        strength = 1 / shape.correlation - 1
        chance = rng.beta(chance * strength, (1 - chance) * strength)
    return rng.binomial(shape.attempts, chance) / shape.attempts


def pairs(
    rng: np.random.Generator, shape: Shape, repetitions: int, *, rate: float, gain: float, moved: float
) -> tuple[Doubles, Doubles]:
    """Two results on the same tasks, of scores `rate` and `rate + gain`.

    Each task's chance is drawn anew for the second with probability `moved`, where it is the first one's else; the
    gain is won at tasks that are lost before.
    """
    size, strength = (repetitions, shape.tasks), 1 / shape.correlation - 1
    first = rng.beta(rate * strength, (1 - rate) * strength, size)
    anew = rng.beta(rate * strength, (1 - rate) * strength, size)
    second = np.where(rng.random(size) < moved, anew, first)
    second = second + (1 - second) * gain / (1 - rate)
    return (
        rng.binomial(shape.attempts, first) / shape.attempts,
        rng.binomial(shape.attempts, second) / shape.attempts,
    )
