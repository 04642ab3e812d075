"""Tree attention: every token attends to its ancestors and to nothing else.

Rule: two kernels, one answer. `blocks` cuts the tree into blocks of queries and gathers for each the keys of its
ancestors (plain SDPA, any device): in pre-order an ancestor of a block's token lies in the block or is an ancestor of
its first token, so a block needs `depth + block` keys however large the tree. `flex` is FlexAttention (CUDA).

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

from agentrl.batch import Bools
from agentrl.training.tree import Positions, TokenTree

Kernel = Literal["blocks", "flex"]

NAME = "agentrl_tree"
BLOCK = 128
"Queries per block; also FlexAttention's block, so that both kernels pad alike."


@dataclass(frozen=True, slots=True, eq=False)
class TreeInputs:
    """What the body of a model is called with; batch of 1, `T` padded to whole blocks."""

    input_ids: Tensor
    "int64 [1, T]"
    position_ids: Tensor
    "int64 [1, T]"
    mask: Tensor | BlockMask
    "blocks: additive, [T / block, 1, block, keys]; flex: a BlockMask."
    keys: Tensor | None
    "blocks: int64 [T / block, keys], tree positions whose keys and values a block reads."


def install(model: Any) -> None:
    """Route the attention of `model` (transformers, with or without peft) through `NAME`, for trees and plain calls."""
    model.config._attn_implementation = NAME


def prepare(tree: TokenTree, *, kernel: Kernel, dtype: torch.dtype, device: torch.device) -> TreeInputs:
    """Padding tokens are trees of their own at the end: they see themselves and nobody sees them."""
    size = len(tree)
    block = BLOCK if kernel == "flex" else min(BLOCK, size)
    padding = -size % block
    end = np.concatenate([tree.subtree_end, np.arange(size + 1, size + padding + 1)]).astype(np.int64)
    ids = torch.from_numpy(np.pad(tree.token, (0, padding)).astype(np.int64)).to(device)
    positions = torch.from_numpy(np.pad(tree.depth, (0, padding)).astype(np.int64)).to(device)
    if kernel == "flex":
        return TreeInputs(ids[None], positions[None], flex_mask(torch.from_numpy(end).to(device)), None)
    keys, allowed = _block_keys(end, block)
    mask = torch.zeros(allowed.shape, dtype=dtype, device=device)
    mask.masked_fill_(torch.from_numpy(~allowed).to(device), float("-inf"))
    return TreeInputs(ids[None], positions[None], mask[:, None], torch.from_numpy(keys).to(device))


def flex_mask(subtree_end: Tensor) -> BlockMask:
    def is_ancestor(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < subtree_end[key])

    size = len(subtree_end)
    return create_block_mask(is_ancestor, 1, None, size, size, device=str(subtree_end.device), BLOCK_SIZE=BLOCK)


def _block_keys(end: Positions, block: int) -> tuple[Positions, Bools]:
    """Key positions [blocks, keys] and who may see them [blocks, block, keys]."""
    starts = np.arange(0, len(end), block)
    ancestors = [np.flatnonzero(end[:start] > start) for start in starts]
    depth = max(len(path) for path in ancestors)
    keys = np.zeros((len(starts), depth + block), np.int64)
    # A slot that is not in use points beyond every query, so the comparison below hides it.
    keys[:, :depth] = len(end)
    for row, path in enumerate(ancestors):
        keys[row, : len(path)] = path
    keys[:, depth:] = starts[:, None] + np.arange(block)
    query = np.arange(len(end)).reshape(-1, block, 1)
    key = keys[:, None, :]
    allowed = (key <= query) & (query < np.append(end, 0)[key])
    return np.where(keys < len(end), keys, 0), allowed


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | BlockMask | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    tree_keys: Tensor | None = None,
    **rest: Any,
) -> tuple[Tensor, Tensor | None]:
    """The signature is that of transformers' attention functions, which pass on whatever a model knows."""
    if tree_keys is not None:
        assert isinstance(attention_mask, Tensor)
        return _attend_blocks(query, key, value, attention_mask, tree_keys, scaling), None
    forward = flex_attention_forward if isinstance(attention_mask, BlockMask) else sdpa_attention_forward
    result: tuple[Tensor, Tensor | None] = forward(
        module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **rest
    )
    return result


def _attend_blocks(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, tree_keys: Tensor, scaling: float | None
) -> Tensor:
    """query [1, heads, T, d], key and value [1, kv heads, T, d] to [1, T, heads, d]."""
    _, heads, size, width = query.shape
    kv_heads = key.shape[1]
    blocks, reach = tree_keys.shape
    block, shared = size // blocks, heads // kv_heads

    def gather(states: Tensor) -> Tensor:
        # embedding() and not indexing: its backward adds rows up in parallel, and deterministically on CPU.
        flat = states.transpose(1, 2).reshape(size, -1)
        return embedding(tree_keys, flat).view(blocks, reach, kv_heads, -1).transpose(1, 2)

    keys, values = gather(key), gather(value)
    queries = query[0].view(kv_heads, shared, blocks, block, width)
    # One call per query head of a key head: neither keys nor mask are repeated in memory.
    outputs = [
        scaled_dot_product_attention(
            queries[:, i].transpose(0, 1), keys, values, attn_mask=mask.to(query.dtype), scale=scaling
        )
        for i in range(shared)
    ]
    # [blocks, kv heads, shared, block, d]; a query head is kv head * shared + i.
    stacked = torch.stack(outputs, dim=2)
    return stacked.permute(0, 3, 1, 2, 4).reshape(1, size, heads, -1)


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
