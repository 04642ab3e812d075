"""Keys and values of many sequences in preallocated slots, behind the `transformers` cache interface.

A slot holds one sequence, entry `p` the key and value of its token at position `p`. Entries at or after a slot's
filled length are junk, but always finite: attention multiplies them by zero, and zero times NaN is NaN.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache

FIRST_LENGTH = 128
FIRST_SLOTS = 16
# Key lengths are rounded up to this: fewer shapes to allocate, and an alignment that CUDA kernels want.
LENGTH_STEP = 16


class SlotCache(Cache):  # type: ignore[misc]
    """Layers of `[slots + 1, length, heads, head_dim]`; the last slot takes what padding writes.

    `aim` says where the next forward pass writes and what it reads; the model then calls `update` once a layer.
    Memory grows by doubling, up to `max_slots` and `max_length`, with what is used.
    """

    def __init__(self, max_slots: int, max_length: int) -> None:
        super().__init__(layers=[])
        self.max_slots = max_slots
        self.max_length = _round_up(max_length)
        self.slots = min(FIRST_SLOTS, max_slots)
        self.length = min(FIRST_LENGTH, self.max_length)
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._destination = torch.empty(0, dtype=torch.int64)
        self._rows: slice | torch.Tensor = slice(0, 0)
        self._window = 0

    @property
    def scratch(self) -> int:
        """Flat entry (slot * length + position) where padding is written."""
        return self.slots * self.length

    def reserve(self, slots: int, length: int) -> None:
        """Make room for `slots` sequences of `length` tokens."""
        rows, columns = self.slots, self.length
        while rows < slots:
            rows = min(rows * 2, self.max_slots)
        while columns < length:
            columns = min(columns * 2, self.max_length)
        if (rows, columns) != (self.slots, self.length):
            for tensors in (self._keys, self._values):
                for layer, old in enumerate(tensors):
                    new = old.new_zeros(rows + 1, columns, *old.shape[2:])
                    new[: self.slots, : self.length] = old[:-1]
                    tensors[layer] = new
            self.slots, self.length = rows, columns

    def aim(self, rows: slice | torch.Tensor, destination: torch.Tensor, window: int) -> int:
        """Batch row i is slot `rows[i]`; its new entries go to `destination` (flat, [rows * new tokens]).

        Returns how many entries of each slot attention will see: `window`, rounded up.
        """
        self._rows, self._destination = rows, destination
        self._window = min(_round_up(window), self.length)
        return self._window

    def copy_prefixes(self, sources: list[int], targets: list[int], tokens: int) -> None:
        """Copy the first `tokens` entries of each source to its target; every source is read before any is written."""
        for tensor in (*self._keys, *self._values):
            tensor[targets, :tokens] = tensor[sources, :tokens]

    def wipe(self) -> None:
        """Overwrite everything, after a forward pass that may have left NaN behind."""
        for tensor in (*self._keys, *self._values):
            tensor.zero_()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write `[rows, heads, new, head_dim]` where `aim` said and return `[rows, heads, window, head_dim]`."""
        while len(self._keys) <= layer_idx:
            self._keys.append(self._allocate(key_states))
            self._values.append(self._allocate(value_states))
        return (
            self._write_and_read(self._keys[layer_idx], key_states),
            self._write_and_read(self._values[layer_idx], value_states),
        )

    def _allocate(self, states: torch.Tensor) -> torch.Tensor:
        return states.new_zeros(self.slots + 1, self.length, states.shape[1], states.shape[3])

    def _write_and_read(self, tensor: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        tensor.flatten(0, 1).index_copy_(0, self._destination, states.transpose(1, 2).flatten(0, 1))
        window = tensor[:, : self._window]
        picked = window[self._rows] if isinstance(self._rows, slice) else window.index_select(0, self._rows)
        return picked.transpose(1, 2)


def _round_up(length: int) -> int:
    return -(-length // LENGTH_STEP) * LENGTH_STEP
