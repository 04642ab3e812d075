"""What a token's loss is divided by: one number per token, computed once on the whole batch.

The loss of a batch is `sum(scale * weight * objective)`, so micro-batches and ranks add up to the whole. Tokens
whose weight is 0 stay in the denominator: rejecting some must not inflate the others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from agentrl.batch import StepTable, TokenColumns
from agentrl.types import Floats

Aggregation = Callable[[StepTable, TokenColumns], Floats]


def token_mean(table: StepTable, columns: TokenColumns) -> Floats:
    """Every sampled token of the batch counts the same (DAPO)."""
    return np.full(len(columns), 1.0 / max(len(columns), 1), np.float32)


def trajectory_mean(table: StepTable, columns: TokenColumns) -> Floats:
    """Every trajectory counts the same, its tokens share its vote (GRPO's sequence mean of token means)."""
    trajectory = table.trajectory[columns.row]
    lengths = np.bincount(trajectory, minlength=table.trajectories)
    trajectories = max(int(np.count_nonzero(lengths)), 1)
    return (1.0 / (trajectories * lengths[trajectory])).astype(np.float32)


def step_mean(table: StepTable, columns: TokenColumns) -> Floats:
    """Every step counts the same, its tokens share its vote."""
    steps = max(int(np.count_nonzero(table.length)), 1)
    return (1.0 / (steps * table.length[columns.row])).astype(np.float32)


def prompt_mean(table: StepTable, columns: TokenColumns) -> Floats:
    """Every task's group counts the same, the tokens of its trajectories share its vote."""
    group = table.group[columns.row]
    lengths = np.bincount(group, minlength=table.groups)
    groups = max(int(np.count_nonzero(lengths)), 1)
    return (1.0 / (groups * lengths[group])).astype(np.float32)


def trajectory_sum(table: StepTable, columns: TokenColumns) -> Floats:
    """Mean over trajectories of the sum over their tokens."""
    trajectories = len(np.unique(table.trajectory[columns.row]))
    return np.full(len(columns), 1.0 / max(trajectories, 1), np.float32)


def constant(length: int) -> Aggregation:
    """Divide by trajectories times a fixed length, the same in every update (Dr. GRPO, Liu et al. 2025)."""

    def scale(table: StepTable, columns: TokenColumns) -> Floats:
        return trajectory_sum(table, columns) / np.float32(length)

    return scale
