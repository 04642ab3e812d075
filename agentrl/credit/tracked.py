"""Credit against what is known of a task from earlier batches: no group is needed, and one trajectory a task is enough.

A rule reads its memory before it learns: the batch at hand is not in the baseline that it is compared with.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from agentrl.batch import StepTable
from agentrl.credit.baselines import whiten
from agentrl.credit.returns import outcomes
from agentrl.credit.segments import Doubles
from agentrl.errors import TrainingError
from agentrl.estimates import WinRates
from agentrl.types import JSON


@dataclass(frozen=True, slots=True)
class TrackedCredit:
    """`r - v` with v the task's win rate so far, whitened over the batch's trajectories (SPO, Xu and Ding 2025).

    Returns are success rates in [0, 1]. Raises `TrainingError` for others.
    """

    rates: WinRates = field(default_factory=WinRates)

    def __call__(self, table: StepTable) -> Doubles:
        found = outcomes(table)
        if len(found.value) and not (found.value.min() >= 0 and found.value.max() <= 1):
            raise TrainingError(
                f"SPO reads returns as success rates from 0 to 1; this batch has returns from {found.value.min():g} "
                f"to {found.value.max():g}. Rescale the reward, or choose grpo or reinforce_plus_plus."
            )
        rate = np.array([self.rates.rate(table.tasks[group]) for group in found.group])
        advantage: Doubles = whiten(found.value - rate, np.ones(len(rate)))[found.of_row]
        return advantage

    def remember(self, table: StepTable) -> None:
        found = outcomes(table)
        for group, value in zip(found.group.tolist(), found.value.tolist(), strict=True):
            self.rates.learn(table.tasks[group], value)

    def state(self) -> JSON:
        return self.rates.state()

    def restore(self, state: JSON) -> None:
        self.rates.restore(state)
