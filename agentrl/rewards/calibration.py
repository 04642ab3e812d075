"""How far what a model foretold is from what came, on average over forecasts of one size.

Equal forecasts are never told apart: a model that says the same of everything is judged by its mean alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BINS = 10
"At most; fewer where there are not ten forecasts for each."


def calibration_error(forecast: npt.ArrayLike, outcome: npt.ArrayLike) -> float:
    """Expected calibration error: the mean over forecasts of |mean forecast - mean outcome| of their bin.

    Bins hold about equally many forecasts, cut at quantiles. In the unit of the forecast: a share for probabilities, a
    return for returns. NaN where nothing was foretold.
    """
    told, came = np.asarray(forecast, np.float64), np.asarray(outcome, np.float64)
    if not told.size:
        return float("nan")
    bins = int(np.clip(told.size // 10, 1, BINS))
    edges = np.quantile(told, np.arange(1, bins) / bins)
    place = np.searchsorted(edges, told, side="right")
    counts = np.bincount(place, minlength=bins)
    gaps = np.bincount(place, told - came, minlength=bins)
    return float(np.abs(gaps).sum() / counts.sum())
