"""Segment reduction: sums, moments and scans over groups named by an integer column.

Order, adjacency and size of the groups do not matter. Ids below 0 mean "in no group" and are not accepted here:
callers select first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.integer]
Doubles = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

_ROUNDING = 1e-12
"Relative spread of sums that are equal but were added up in another order."


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Per-segment statistics, one entry per segment id."""

    count: Places
    mean: Doubles
    std: Doubles
    "Unbiased (n - 1), as in the reference implementations; 0 where a segment has one member."
    constant: npt.NDArray[np.bool_]
    "True where all members are equal but for rounding, which must not turn such a segment into a signal."


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
    held = count > 0
    constant = ~held
    constant[held] = high[held] - low[held] <= _ROUNDING * np.maximum(abs(low[held]), abs(high[held]))
    return Moments(count, mean, std, constant)


def dense_ids(*columns: Ids) -> Places:
    """One id per distinct combination of the columns, which hold any integers: 0..k-1."""
    ids = _renumbered(columns[0])
    for column in columns[1:]:
        other = _renumbered(column)
        ids = _renumbered(ids * (int(other.max(initial=-1)) + 1) + other)
    return ids


def _renumbered(ids: Ids) -> Places:
    if not len(ids):
        return np.zeros(0, np.int64)
    low, high = int(ids.min()), int(ids.max())
    if high - low < 4 * len(ids) + 1024:
        # A table of flags is several times faster than a sort.
        shifted = ids.astype(np.int64) - low
        present = np.zeros(high - low + 1, np.bool_)
        present[shifted] = True
        renumbered: Places = (np.cumsum(present) - 1)[shifted]
        return renumbered
    _, inverse = np.unique(ids, return_inverse=True)
    return inverse.reshape(-1).astype(np.int64)


def time_order(segment: Ids, index: Ids) -> Places:
    """The permutation that puts the rows of each segment together, by rising index."""
    span = int(index.max(initial=0)) + 1
    key = segment.astype(np.int64) * span + index
    if np.all(key[1:] >= key[:-1]):
        return np.arange(len(key))
    return np.argsort(key, kind="stable")


def suffix_sums(values: Doubles, decay: float | Doubles, segment: Ids, index: Ids) -> Doubles:
    """`R_t = values_t + decay_t R_{t+1}` within each segment, in the order of `index`; shape [rows].

    Adds up in log2(longest segment) passes over the whole column, so a million rows take a fraction of a second.
    """
    order = time_order(segment, index)
    sums = values[order].astype(np.float64)
    factor = np.broadcast_to(np.asarray(decay, np.float64), values.shape)[order].copy()
    ordered = segment[order]
    _, lengths = np.unique(ordered, return_counts=True)
    hop = 1
    while hop < lengths.max(initial=0):
        same = ordered[:-hop] == ordered[hop:]
        sums[:-hop] += np.where(same, factor[:-hop] * sums[hop:], 0.0)
        factor[:-hop] *= np.where(same, factor[hop:], 0.0)
        hop *= 2
    result = np.empty(len(values))
    result[order] = sums
    return result
