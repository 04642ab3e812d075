"""Rewards summed ahead, per trajectory, per step and per token.

The place of a step in its trajectory is the `index` column; the order of the rows says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agentrl.batch import StepTable, TokenColumns
from agentrl.credit.segments import Doubles, Places, segment_sum, suffix_sums


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """One entry per trajectory that has a row, k of them."""

    value: Doubles
    "[k] the (discounted) return."
    group: Places
    "[k]"
    tokens: Doubles
    "[k] sampled tokens."
    steps: Places
    "[k] rows."
    of_row: Places
    "[rows] the trajectory's place in the other columns."


def outcomes(table: StepTable, gamma: float = 1.0) -> Outcomes:
    """`sum_t gamma^t r_t` of each trajectory, with what baselines compare it by."""
    steps = np.bincount(table.trajectory, minlength=table.trajectories)
    present = steps > 0
    of_row = (np.cumsum(present) - 1)[table.trajectory]
    count = int(np.count_nonzero(present))
    group = np.zeros(count, np.int64)
    group[of_row] = table.group
    return Outcomes(
        value=segment_sum(table.reward * gamma**table.index, of_row, count),
        group=group,
        tokens=segment_sum(table.length.astype(np.float64), of_row, count),
        steps=steps[present],
        of_row=of_row,
    )


def step_returns(table: StepTable, gamma: float) -> Doubles:
    """`R_t = r_t + gamma R_{t+1}` per row, shape [rows] (GiGPO, Feng et al. 2025, eq. 5)."""
    return suffix_sums(table.reward, gamma, table.trajectory, table.index)


def token_returns(table: StepTable, columns: TokenColumns, gamma: float) -> Doubles:
    """Return-to-go of each sampled token, shape [tokens]; a step's reward falls on its last token.

    gamma discounts once per sampled token: those that the environment wrote lie between two steps and cost nothing.
    A recursion that zeroes the return where the mask is 0 would cut every turn but the last off from the outcome.
    """
    order = np.argsort(table.trajectory.astype(np.int64) * (int(table.index.max(initial=0)) + 1) + table.index)
    following = np.zeros(len(table))
    # A step that sampled nothing discounts nothing, and its reward falls on the token before it.
    following[order[:-1]] = table.length[order[1:]]
    at_end = suffix_sums(table.reward, gamma**following, table.trajectory, table.index)
    ends = np.cumsum(table.length)
    to_end = ends[columns.row] - 1 - np.arange(len(columns))
    return at_end[columns.row] * gamma**to_end
