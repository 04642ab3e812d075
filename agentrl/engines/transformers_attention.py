"""Attention of the transformers engine over its cache slots.

Rule: keys and values are read where they lie. Query heads that share a key head are laid one after the other as
queries of that head, so that no key or value is repeated for them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "agentrl_slots"

FEW = 32
"""With at most so many new tokens a row, repeating keys and values would move more memory than attention itself; with
more, masks of that many queries for each of the heads would."""


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **rest: Any,
) -> tuple[Tensor, None]:
    """query [rows, heads, new, d], key and value [rows, key heads, window, d], mask [rows, 1, new, window], additive,
    to [rows, new, heads, d]. The signature is that of transformers' attention functions."""
    rows, heads, new, width = query.shape
    share = heads // key.shape[1]
    if attention_mask is None or share == 1 or new > FEW or value.shape[-1] != width:
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **rest
        )
        return result
    folded = query.reshape(rows, key.shape[1], share * new, width)
    mask = attention_mask if new == 1 else attention_mask.repeat(1, 1, share, 1)
    found = scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=scaling)
    return found.reshape(rows, heads, new, width).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
