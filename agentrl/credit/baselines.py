"""From returns to advantages: subtract a group's baseline, divide by a scale.

A group whose returns are all equal gets exactly 0, also where rounding would leave a residue that division by a
standard deviation of the same residue would blow up.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from agentrl.credit.segments import Doubles, Ids, segment_moments

Scale = Literal["none", "group", "batch"]
Baseline = Literal["mean", "leave_one_out"]
Singleton = Literal["zero", "raw"]


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
