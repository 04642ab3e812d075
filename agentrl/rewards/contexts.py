"""A trajectory as the rows that a model reads once, and the place of each step's last token in them.

A row is a context from its beginning to a leaf, so that steps that extend one another are read in one pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agentrl.types import TokenIds, Trajectory


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One row of a trajectory."""

    tokens: TokenIds
    steps: npt.NDArray[np.int64]
    "Which steps of the trajectory are read here, by their place in `Trajectory.steps`; each in one row only."
    places: npt.NDArray[np.int64]
    "Per entry of `steps`, the index in `tokens` of the last token that the step sampled."


def readings(trajectory: Trajectory) -> list[Reading]:
    """The rows of a trajectory: one where every step extends the one before, one a step where none does."""
    order = {step.id: place for place, step in enumerate(trajectory.steps)}
    extended = {step.context for step in trajectory.steps if step.context is not None}
    read: set[str] = set()
    rows = []
    for leaf in (step for step in trajectory.steps if step.id not in extended):
        parts: list[TokenIds] = []
        length, steps, places = 0, [], []
        for step in trajectory.context_of(leaf):
            parts += [step.prompt, step.tokens]
            length += len(step.prompt) + len(step.tokens)
            if step.id not in read:
                read.add(step.id)
                steps.append(order[step.id])
                places.append(length - 1)
        rows.append(Reading(np.concatenate(parts), np.array(steps, np.int64), np.array(places, np.int64)))
    return rows
