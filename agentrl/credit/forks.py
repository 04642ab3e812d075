"""What forks ask of credit: who is compared with whom, and which tokens of a shared beginning are trained.

A weight of 0 drops tokens and leaves every denominator as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agentrl.batch import StepTable, TrainingBatch
from agentrl.credit.segments import Doubles
from agentrl.types import Floats, Group


@dataclass(frozen=True, slots=True)
class OneGroupAPlace:
    """Forks that left at one place are a group of their own, and those from the start another (Fission-GRPO)."""

    def __call__(self, groups: Sequence[Group], table: StepTable) -> StepTable:
        known: dict[tuple[str, str | None], int] = {}
        of_trajectory, tasks = [], []
        for group in groups:
            for trajectory in group.trajectories:
                place = (group.id, trajectory.forked_from)
                if place not in known:
                    known[place] = len(known)
                    tasks.append(group.task.id)
                of_trajectory.append(known[place])
        ids = np.array(of_trajectory, np.int32)[table.trajectory]
        return replace(table, group=ids, tasks=tuple(tasks))


@dataclass(frozen=True, slots=True)
class OwnTokens:
    """1 for tokens that were sampled for their trajectory, 0 for those that it begins with: the fork's prompt."""

    def __call__(self, batch: TrainingBatch) -> Floats:
        return (~batch.inherited).astype(np.float32)


@dataclass(frozen=True, slots=True)
class UnsharedTokens:
    """0 for the tokens of steps that a fork begins with, in the fork and in the trajectory that it left (R3L)."""

    def __call__(self, batch: TrainingBatch) -> Floats:
        step = batch.table.step[batch.columns.row]
        return (~np.isin(step, step[batch.inherited])).astype(np.float32)


@dataclass(frozen=True, slots=True)
class PositivesAmplified:
    """Advantages above 0 times `factor`: one good retry weighs as much as several failures (R3L)."""

    rule: Callable[[StepTable], Doubles]
    factor: float = 3.0

    def __call__(self, table: StepTable) -> Doubles:
        credit = self.rule(table)
        amplified: Doubles = np.where(credit > 0, self.factor * credit, credit)
        return amplified
