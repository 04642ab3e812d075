"""From returns to advantages: subtract a group's baseline, divide by a scale.

A group whose returns are all equal gets exactly 0, also where rounding would leave a residue that division by a
standard deviation of the same residue would blow up.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from agentrl.credit.segments import Doubles, Ids, segment_moments, segment_sum

Scale = Literal["none", "group", "batch"]
Baseline = Literal["mean", "leave_one_out"]
Singleton = Literal["zero", "raw"]
Whitening = Literal["whiten", "scale"]


def center(
    values: Doubles,
    group: Ids,
    *,
    scale: Scale = "group",
    baseline: Baseline = "mean",
    singleton: Singleton = "zero",
    epsilon: float = 1e-6,
) -> Doubles:
    """Advantage of each value within its group.

    `values` and `group` have shape [n]; the result too. scale: "group" divides by the unbiased standard deviation
    of the group (GRPO, Shao et al. 2024, eq. 3), "batch" by that of all values (Lite-PPO), "none" leaves the
    difference (Dr. GRPO). baseline "leave_one_out" is RLOO: n / (n - 1) times the difference from the mean.
    singleton "raw" keeps the value of a group of one, as some references do; "zero" gives it no credit.
    """
    segments = int(group.max(initial=-1)) + 1
    moments = segment_moments(values, group, segments)
    single = moments.count == 1
    difference = values - moments.mean[group]
    if baseline == "leave_one_out":
        difference *= (moments.count / np.maximum(moments.count - 1, 1))[group]
    if scale == "group":
        difference /= moments.std[group] + epsilon
    elif scale == "batch":
        difference /= (values.std(ddof=1) if len(values) > 1 else 0.0) + epsilon
    result = np.where(moments.constant[group], 0.0, difference)
    if singleton == "raw":
        result = np.where(single[group], values / (1.0 if scale == "none" else 1.0 + epsilon), result)
    return result


def from_length_weighted_mean(
    values: Doubles, group: Ids, length: Doubles, *, singleton: Singleton = "zero"
) -> Doubles:
    """`r - sum(l r) / sum(l)`: the variance-optimal baseline if gradients grow with length (OPO, Hao et al. 2025).

    `singleton` as in `center`.
    """
    segments = int(group.max(initial=-1)) + 1
    moments = segment_moments(values, group, segments)
    total = segment_sum(length, group, segments)
    weighted = segment_sum(values * length, group, segments) / np.where(total > 0, total, 1.0)
    # A group that sampled nothing has no weights to take a mean by.
    base = np.where(total > 0, weighted, moments.mean)
    result = np.where(moments.constant[group], 0.0, values - base[group])
    return np.where((moments.count == 1)[group], values, result) if singleton == "raw" else result


def relative_to_mean(values: Doubles, group: Ids) -> Doubles:
    """`(r - mean) / mean`, 0 where the mean is not positive (MaxRL)."""
    moments = segment_moments(values, group, int(group.max(initial=-1)) + 1)
    usable = ~moments.constant & (moments.mean > 0)
    divided = (values - moments.mean[group]) / np.where(usable, moments.mean, 1.0)[group]
    return np.where(usable[group], divided, 0.0)


def whiten(values: Doubles, weight: Doubles, mode: Whitening = "whiten", epsilon: float = 1e-8) -> Doubles:
    """Divide by the batch's standard deviation, each value counted `weight` times; "whiten" also subtracts the mean.

    Unbiased over the sum of weights. Values that are all equal become 0 under "whiten" and stay under "scale".
    """
    total = float(weight.sum())
    counted = values[weight > 0]
    if total <= 1 or not len(counted):
        return np.zeros_like(values) if mode == "whiten" else values.copy()
    mean = float((weight * values).sum()) / total
    variance = float((weight * (values - mean) ** 2).sum()) / (total - 1)
    if np.ptp(counted) <= 1e-12 * np.abs(counted).max():
        return np.zeros_like(values) if mode == "whiten" else values.copy()
    result: Doubles = (values - (mean if mode == "whiten" else 0.0)) / np.sqrt(variance + epsilon)
    return result
