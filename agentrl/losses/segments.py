"""Sums, means and running values over the steps or trajectories of a micro-batch.

Rule: every function takes [n] values with [n] ids and returns [n], each token its segment's value. Only running
values need the tokens of a segment to stand together, in the order in which they were sampled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Level = Literal["token", "step", "trajectory"]
"Over what a number is taken."


def segment_sum(values: Tensor, ids: Tensor) -> Tensor:
    return _gathered(values, ids)[ids]


def segment_mean(values: Tensor, ids: Tensor) -> Tensor:
    counts = _gathered(torch.ones_like(values), ids)
    return (_gathered(values, ids) / counts.clamp(min=1))[ids]


def segment_max(values: Tensor, ids: Tensor) -> Tensor:
    found = values.new_full((_count(ids),), float("-inf"))
    return found.scatter_reduce(0, ids, values, "amax")[ids]


def place(ids: Tensor) -> Tensor:
    """[n] int64: 0 for the first token of its segment, then 1, 2, ..."""
    return torch.arange(len(ids), device=ids.device) - _first(ids)


def running_sum(values: Tensor, ids: Tensor) -> Tensor:
    """Sum over the segment up to and with the token."""
    # In float64, so that what stands before a segment leaves no rounding in it.
    total = values.double().cumsum(0)
    first = _first(ids)
    return (total - total[first] + values.double()[first]).to(values.dtype)


def running_min(values: Tensor, ids: Tensor) -> Tensor:
    """Minimum over the segment up to and with the token: log2(n) rounds, each looking twice as far back."""
    distance = 1
    while distance < len(values):
        same = ids[distance:] == ids[:-distance]
        back = torch.where(same, values[:-distance], values[distance:])
        values = torch.cat([values[:distance], torch.minimum(values[distance:], back)])
        distance *= 2
    return values


REDUCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": segment_mean,
    "sum": segment_sum,
    "max": segment_max,
}


def _count(ids: Tensor) -> int:
    return int(ids.max()) + 1 if len(ids) else 0


def _gathered(values: Tensor, ids: Tensor) -> Tensor:
    """[segments]"""
    return values.new_zeros(_count(ids)).index_add(0, ids, values)


def _first(ids: Tensor) -> Tensor:
    """[n] index of the first token of each token's segment."""
    index = torch.arange(len(ids), device=ids.device)
    begins = torch.ones_like(ids, dtype=torch.bool)
    begins[1:] = ids[1:] != ids[:-1]
    return torch.where(begins, index, torch.zeros_like(index)).cummax(0).values if len(ids) else index
