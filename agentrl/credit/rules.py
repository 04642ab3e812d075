"""Credit rules: the terms that say how much better a step was than its baseline.

A rule is a pure function of the step table: one advantage per row, every entry finite. Methods add terms up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from agentrl.batch import StepTable
from agentrl.credit.baselines import Baseline, Scale, Singleton, center
from agentrl.credit.returns import outcomes, step_returns
from agentrl.credit.segments import Doubles, dense_ids

CreditRule = Callable[[StepTable], Doubles]


@dataclass(frozen=True, slots=True)
class EpisodeCredit:
    """Every step gets its trajectory's advantage within the task's group (GRPO and kin)."""

    scale: Scale = "group"
    baseline: Baseline = "mean"
    singleton: Singleton = "zero"
    statistics: Literal["trajectory", "pooled"] = "trajectory"
    "pooled: mean and deviation over the group's step rows, so a trajectory weighs by its length."
    gamma: float = 1.0
    "Below 1 a later success is worth less: the control that GiGPO's discount needs."
    epsilon: float = 1e-6

    def __call__(self, table: StepTable) -> Doubles:
        found = outcomes(table, self.gamma)
        pooled = self.statistics == "pooled"
        values = found.value[found.of_row] if pooled else found.value
        groups = table.group if pooled else found.group
        advantage = center(
            values,
            groups,
            scale=self.scale,
            baseline=self.baseline,
            singleton=self.singleton,
            epsilon=self.epsilon,
        )
        return advantage if pooled else advantage[found.of_row]


@dataclass(frozen=True, slots=True)
class AnchorCredit:
    """A step against the other steps of its group that were taken in the same state (GiGPO, eq. 6 to 8).

    A step without an anchor, or alone with it, gets 0. A state that one trajectory visits twice is compared with
    itself, as in the paper.
    """

    gamma: float = 0.95
    scale: Scale = "group"
    epsilon: float = 1e-6

    def __call__(self, table: StepTable) -> Doubles:
        returns = step_returns(table, self.gamma)
        anchored = table.anchor >= 0
        advantage = np.zeros(len(table))
        if anchored.any():
            places = dense_ids(table.group[anchored], table.anchor[anchored])
            advantage[anchored] = center(returns[anchored], places, scale=self.scale, epsilon=self.epsilon)
        return advantage


@dataclass(frozen=True, slots=True)
class StepReturnCredit:
    """Discounted return-to-go against all steps of the group: GiGPO without anchors, its control."""

    gamma: float = 0.95
    scale: Scale = "group"
    epsilon: float = 1e-6

    def __call__(self, table: StepTable) -> Doubles:
        return center(step_returns(table, self.gamma), table.group, scale=self.scale, epsilon=self.epsilon)


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """Terms added up, each with its weight."""

    terms: tuple[tuple[float, CreditRule], ...]

    def __call__(self, table: StepTable) -> Doubles:
        total = np.zeros(len(table))
        for weight, rule in self.terms:
            total += weight * rule(table)
        return total
