"""Tree attention: every token attends to its ancestors and to nothing else.

Rule: two kernels, one answer. `blocks` cuts the tree into strands, gathers for each the keys of its ancestors, and
sends strands of like size through SDPA as one block (any device). `flex` is FlexAttention (CUDA).

A model that is given to `install` keeps answering ordinary calls through SDPA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from torch.nn.functional import embedding, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from agentrl.training.strands import Block, cut
from agentrl.training.tree import TokenTree

Kernel = Literal["blocks", "flex"]

NAME = "agentrl_tree"
FLEX_BLOCK = 128
"FlexAttention's block; trees are padded to whole ones for it."


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One SDPA call: rows of queries and the keys that they read."""

    queries: Tensor
    "int64 [rows, queries], tree positions."
    keys: Tensor
    "int64 [rows, keys], tree positions."
    mask: Tensor | None
    "Additive [rows, 1, queries, keys]; None where queries and keys are the same path, read causally."


@dataclass(frozen=True, slots=True, eq=False)
class Calls:
    """All calls of one tree."""

    calls: tuple[Call, ...]
    outputs: Tensor
    "int64 [T]: where among the outputs of all calls, one after the other, that of each tree position stands."


@dataclass(frozen=True, slots=True, eq=False)
class TreeInputs:
    """What the body of a model is called with; batch of 1. For flex, `T` is padded to whole blocks."""

    input_ids: Tensor
    "int64 [1, T]"
    position_ids: Tensor
    "int64 [1, T]"
    mask: Tensor | BlockMask
    "flex: a BlockMask; blocks: a stand-in that keeps the model from making a mask of its own."
    calls: Calls | None
    "blocks only."


def install(model: Any) -> None:
    """Route the attention of `model` (transformers, with or without peft) through `NAME`, for trees and plain calls."""
    model.config._attn_implementation = NAME


def prepare(tree: TokenTree, *, kernel: Kernel, dtype: torch.dtype, device: torch.device) -> TreeInputs:
    """Padding tokens are trees of their own at the end: they see themselves and nobody sees them."""
    size = len(tree)
    padding = -size % FLEX_BLOCK if kernel == "flex" else 0
    ids = torch.from_numpy(np.pad(tree.token, (0, padding)).astype(np.int64)).to(device)
    positions = torch.from_numpy(np.pad(tree.depth, (0, padding)).astype(np.int64)).to(device)
    if kernel == "flex":
        end = np.concatenate([tree.subtree_end, np.arange(size + 1, size + padding + 1)]).astype(np.int64)
        return TreeInputs(ids[None], positions[None], flex_mask(torch.from_numpy(end).to(device)), None)
    blocks = cut(tree)
    calls = tuple(_call(block, dtype, device) for block in blocks)
    outputs = np.empty(size, np.int64)
    start = 0
    for block in blocks:
        outputs[block.queries[block.owned]] = start + np.flatnonzero(block.owned)
        start += block.owned.size
    stand_in = torch.zeros(1, 1, 1, 1, dtype=dtype, device=device)
    return TreeInputs(ids[None], positions[None], stand_in, Calls(calls, torch.from_numpy(outputs).to(device)))


def flex_mask(subtree_end: Tensor) -> BlockMask:
    def is_ancestor(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < subtree_end[key])

    size = len(subtree_end)
    return create_block_mask(is_ancestor, 1, None, size, size, device=str(subtree_end.device), BLOCK_SIZE=FLEX_BLOCK)


def _call(block: Block, dtype: torch.dtype, device: torch.device) -> Call:
    mask = None
    if block.allowed is not None:
        mask = torch.zeros(block.allowed.shape, dtype=dtype, device=device)
        mask = mask.masked_fill_(torch.from_numpy(~block.allowed).to(device), float("-inf"))[:, None]
    queries = torch.from_numpy(block.queries).to(device)
    keys = queries if block.keys is block.queries else torch.from_numpy(block.keys).to(device)
    return Call(queries, keys, mask)


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | BlockMask | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    tree_calls: Calls | None = None,
    **rest: Any,
) -> tuple[Tensor, Tensor | None]:
    """The signature is that of transformers' attention functions, which pass on whatever a model knows."""
    if tree_calls is not None:
        return _attend_blocks(query, key, value, tree_calls, scaling), None
    forward = flex_attention_forward if isinstance(attention_mask, BlockMask) else sdpa_attention_forward
    result: tuple[Tensor, Tensor | None] = forward(
        module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **rest
    )
    return result


def _attend_blocks(query: Tensor, key: Tensor, value: Tensor, tree: Calls, scaling: float | None) -> Tensor:
    """query [1, heads, T, d], key and value [1, kv heads, T, d] to [1, T, heads, d]."""
    _, heads, size, _ = query.shape

    def gather(states: Tensor, positions: Tensor) -> Tensor:
        # The rotary embedding keeps the order of memory that the projections made, so `flat` is a view.
        flat = states.transpose(1, 2).reshape(size, -1)
        # embedding() and not indexing: its backward adds rows up in parallel, and deterministically on CPU.
        found = embedding(positions, flat)
        return found.view(*positions.shape, states.shape[1], -1).transpose(1, 2)

    outputs = []
    for call in tree.calls:
        found = scaled_dot_product_attention(
            gather(query, call.queries),
            gather(key, call.keys),
            gather(value, call.keys),
            attn_mask=None if call.mask is None else call.mask.to(query.dtype),
            is_causal=call.mask is None,
            scale=scaling,
            enable_gqa=heads != key.shape[1],
        )
        outputs.append(found.transpose(1, 2).flatten(0, 1).flatten(1))
    return embedding(tree.outputs, torch.cat(outputs)).view(1, size, heads, -1)


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
