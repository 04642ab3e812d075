"""Rewards summed ahead, per trajectory and per step.

The place of a step in its trajectory is the `index` column; the order of the rows says nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from agentrl.batch import StepTable
from agentrl.credit.segments import Doubles, segment_sum


def trajectory_returns(table: StepTable, gamma: float = 1.0) -> Doubles:
    """`sum_t gamma^t r_t` per trajectory, shape [trajectories]."""
    return segment_sum(table.reward * gamma**table.index, table.trajectory, table.trajectories)


def step_returns(table: StepTable, gamma: float) -> Doubles:
    """`R_t = r_t + gamma R_{t+1}` per row, shape [rows] (GiGPO, Feng et al. 2025, eq. 5)."""
    order = np.lexsort((-table.index, table.trajectory))
    returns = np.zeros(len(table))
    ahead, current = 0.0, -1
    for row in order:
        if table.trajectory[row] != current:
            ahead, current = 0.0, table.trajectory[row]
        ahead = table.reward[row] + gamma * ahead
        returns[row] = ahead
    return returns


def trajectory_groups(table: StepTable) -> npt.NDArray[np.int64]:
    """Group of each trajectory, shape [trajectories]; -1 for ids without a row."""
    groups = np.full(table.trajectories, -1, np.int64)
    groups[table.trajectory] = table.group
    return groups
