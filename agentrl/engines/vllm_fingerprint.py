"""Fingerprints of weights: equal bits give equal fingerprints, on either side of a publish, on any device.

Both sides cut and round the same way, so that a comparison is exact in every dtype and needs no tolerance.
"""

from __future__ import annotations

import torch

BLOCK = 1024
COLUMNS = 8


def checksum(tensor: torch.Tensor) -> str:
    """Of the bits, at memory speed: 64-bit words are summed by blocks, the block sums weighted by their place.

    Tells stale, torn and swapped weights apart; it is no defence against an adversary.
    """
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    if data.storage_offset() % 8:
        data = data.clone()
    whole = data.numel() // (8 * BLOCK) * (8 * BLOCK)
    rest = torch.zeros(8 * BLOCK, dtype=torch.uint8, device=data.device)
    rest[: data.numel() - whole] = data[whole:]
    sums = torch.cat([data[:whole].view(torch.int64).view(-1, BLOCK).sum(1), rest.view(torch.int64).sum().view(1)])
    # Within a block the order counts through the last one only; across blocks through the odd weights.
    weights = torch.arange(1, 2 * len(sums), 2, dtype=torch.int64, device=sums.device)
    return f"{data.numel()}:{int((sums * weights).sum())}"


def probe_columns(version: int, width: int) -> list[int]:
    """The input columns that are compared through the layer's own arithmetic; others at every version."""
    generator = torch.Generator().manual_seed(version)
    return torch.randperm(width, generator=generator)[:COLUMNS].tolist()


def one_hot(columns: list[int], width: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """`len(columns)` inputs for which a linear layer answers columns of the weight it computes with, exactly."""
    rows = torch.zeros(len(columns), width, dtype=dtype, device=device)
    rows[torch.arange(len(columns)), torch.tensor(columns)] = 1.0
    return rows


def column_checksum(values: torch.Tensor) -> str:
    """Of a [columns, outputs] matrix, after what a matrix product may do to a bit: lose the sign of a zero or a
    subnormal number."""
    tiny = torch.finfo(values.dtype).tiny
    return checksum(torch.where(values.abs() < tiny, torch.zeros_like(values), values))
