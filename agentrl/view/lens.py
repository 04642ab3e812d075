"""What each sampled token of an episode was trained with, beside what it was sampled with.

Numbers are aligned by place in the trajectory's steps; where the lengths do not agree nothing is claimed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from agentrl.store.records import Trained
from agentrl.types import Step, Trajectory
from agentrl.view.pieces import Pieces
from agentrl.view.shapes import Token


class Lens:
    """Of one trajectory. Where several batches held it, the newest one that trained on it is shown."""

    def __init__(self, trajectory: Trajectory, taught: Sequence[Trained]) -> None:
        # What an earlier group sampled is context here: no batch of this trajectory has a column for it.
        lengths = [len(step.tokens) if step.trains else 0 for step in trajectory.steps]
        self._starts = np.concatenate(([0], np.cumsum(lengths))).astype(int)
        fitting = [one for one in taught if len(one.advantage) == self._starts[-1]]
        used = [one for one in fitting if one.coefficient.any()]
        self._taught = next(reversed(used or fitting), None)

    def tokens(self, place: int, step: Step, pieces: Pieces) -> list[Token]:
        """Of the step at `place`."""
        texts = pieces.each(step.tokens)
        known = zip(texts, step.tokens.tolist(), step.logprobs.tolist(), step.versions.tolist(), strict=True)
        if self._taught is None or not step.trains:
            return [Token(*one) for one in known]
        part = slice(self._starts[place], self._starts[place + 1])
        taught = self._taught
        trained = (taught.coefficient[part] != 0).tolist()
        advantage = _numbers(taught.advantage[part])
        mismatch = _numbers(taught.logprobs[part] - step.logprobs)
        more = zip(trained, advantage, mismatch, strict=True)
        return [Token(*one, *two) for one, two in zip(known, more, strict=True)]

    def step_advantages(self) -> list[float | None]:
        """Mean over the tokens of each step, where any of them was trained on."""
        if self._taught is None:
            return [None] * (len(self._starts) - 1)
        found: list[float | None] = []
        for start, end in zip(self._starts[:-1], self._starts[1:], strict=True):
            trained = self._taught.coefficient[start:end] != 0
            found.append(float(self._taught.advantage[start:end][trained].mean()) if trained.any() else None)
        return found


def _numbers(values: npt.NDArray[np.float32]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]
