"""Means over seeds with 95 % intervals of Student's t, and differences seed by seed.

The seed is the unit: what varies within a run is inside its number already.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120)
"The 97.5 % quantile for 1, 2, ... degrees of freedom; the last one serves for more, which is a little too wide."


@dataclass(frozen=True, slots=True)
class Estimate:
    value: float
    half: float
    "Half of the interval; nan for a single seed."

    def show(self, factor: float = 1.0, *, signed: bool = False) -> str:
        """`12.3 ± 0.4`; a difference whose interval leaves out 0 is bold."""
        value, half = factor * self.value, factor * self.half
        text = f"{value:{'+' if signed else ''}.1f}" + (f" ± {half:.1f}" if math.isfinite(half) else "")
        return f"**{text}**" if signed and abs(value) > half > 0 else text


def estimate(values: Sequence[float]) -> Estimate:
    if len(values) < 2:
        return Estimate(mean(values), math.nan)
    return Estimate(mean(values), _T[min(len(values) - 1, len(_T)) - 1] * stdev(values) / math.sqrt(len(values)))


def paired(control: Mapping[int, float], treated: Mapping[int, float]) -> Estimate | None:
    """`treated - control` over the seeds that both have; None where there is none."""
    shared = sorted(control.keys() & treated.keys())
    return estimate([treated[seed] - control[seed] for seed in shared]) if shared else None
