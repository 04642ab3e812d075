"""Segment reduction: sums and moments over groups named by an integer column.

Order, adjacency and size of the groups do not matter. Ids below 0 mean "in no group" and are not accepted here:
callers select first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.integer]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Per-segment statistics, one entry per segment id."""

    count: npt.NDArray[np.int64]
    mean: Doubles
    std: Doubles
    "Unbiased (n - 1), as in the reference implementations; 0 where a segment has one member."
    constant: npt.NDArray[np.bool_]
    "True where all members are exactly equal: rounding must not turn such a segment into a signal."


def segment_sum(values: Doubles, ids: Ids, segments: int) -> Doubles:
    return np.bincount(ids, weights=values, minlength=segments).astype(np.float64)


def segment_moments(values: Doubles, ids: Ids, segments: int) -> Moments:
    """Two-pass moments in float64."""
    count = np.bincount(ids, minlength=segments)
    mean = segment_sum(values, ids, segments) / np.maximum(count, 1)
    squares = segment_sum((values - mean[ids]) ** 2, ids, segments)
    std = np.sqrt(squares / np.maximum(count - 1, 1))
    low = np.full(segments, np.inf)
    high = np.full(segments, -np.inf)
    np.minimum.at(low, ids, values)
    np.maximum.at(high, ids, values)
    return Moments(count, mean, std, low == high)


def dense_ids(*columns: Ids) -> npt.NDArray[np.int64]:
    """One id per distinct combination of the columns: 0..k-1."""
    _, ids = np.unique(np.stack(columns), axis=1, return_inverse=True)
    return ids.reshape(-1).astype(np.int64)
