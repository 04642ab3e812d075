"""Fingerprints of weights: equal bits give equal fingerprints, on either side of a publish, on any device.

Both sides cut and round the same way, so that a comparison is exact in every dtype and needs no tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

BLOCK = 1024
COLUMNS = 1
HEAD = "lm_head.weight"
EMBEDDING = "embed_tokens.weight"


def fingerprints(tensors: Mapping[str, torch.Tensor], version: int) -> tuple[dict[str, str], dict[str, str]]:
    """Of what a server must hold, and of columns of what it must compute with, by published name."""
    held = {name: checksum(tensor) for name, tensor in tensors.items()}
    computed = {}
    # A head of its own comes last and so replaces the embedding.
    for name in sorted(tensors, key=lambda name: (name.endswith(HEAD), name)):
        tensor = tensors[name]
        if tensor.ndim == 2 and name.endswith(".weight"):
            columns = column_checksum(tensor[:, probe_columns(version, tensor.shape[1])])
            computed["output head" if name.endswith((HEAD, EMBEDDING)) else name] = columns
    return held, computed


def checksum(tensor: torch.Tensor) -> str:
    """Of the bits, at memory speed: 64-bit words are summed by blocks, the block sums weighted by their place.

    Tells stale, torn and swapped weights apart; it is no defence against an adversary.
    """
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    if data.storage_offset() % 8:
        data = data.clone()
    length = data.numel()
    whole = length // (8 * BLOCK) * (8 * BLOCK)
    sums = data[:whole].view(torch.int64).view(-1, BLOCK).sum(1)
    if whole < length:
        rest = torch.nn.functional.pad(data[whole:], (0, whole + 8 * BLOCK - length))
        sums = torch.cat([sums, rest.view(torch.int64).sum().view(1)])
    # Within a block the order does not count; across blocks it does, through the odd weights.
    weights = torch.arange(1, 2 * len(sums), 2, dtype=torch.int64, device=sums.device)
    return f"{length}:{int((sums * weights).sum())}"


def probe_columns(version: int, width: int) -> slice:
    """The input columns that are compared through the layer's own arithmetic; others at every version.

    Neighbours: from a row that lies in memory as a whole they are read at once.
    """
    generator = torch.Generator().manual_seed(version)
    first = int(torch.randint(max(width - COLUMNS, 0) + 1, (1,), generator=generator))
    return slice(first, min(first + COLUMNS, width))


def one_hot(columns: slice, width: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """One input a column, for which a linear layer answers that column of the weight it computes with, exactly."""
    rows = torch.zeros(columns.stop - columns.start, width, dtype=dtype, device=device)
    rows[:, columns].fill_diagonal_(1.0)
    return rows


def column_checksum(values: torch.Tensor) -> str:
    """Of an [outputs, columns] matrix, after what a matrix product may do to a bit: lose the sign of a zero or a
    subnormal number."""
    tiny = torch.finfo(values.dtype).tiny
    return checksum(torch.where(values.abs() < tiny, torch.zeros_like(values), values))
