"""Token trees: the contexts of a batch as one radix trie, so that every distinct prefix is computed once.

Rule: the layout is depth-first pre-order, so position j is an ancestor of position i (or i itself) iff
`j <= i < subtree_end[j]`. That one inequality is the attention mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from agentrl.batch import Context, Ints
from agentrl.errors import InvalidDataError
from agentrl.types import TokenIds

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class TokenTree:
    """A forest of token paths. The first three arrays have one entry per tree position, the last three per column."""

    token: TokenIds
    depth: Ints
    "Distance from the root: the position id that the model is given."
    subtree_end: Ints
    "One past the last descendant."
    column: Positions
    "Index into `TokenColumns`, ascending."
    position: Positions
    "Where the column's token stands. Several columns share one where samples are identical or steps are shared."
    predictor: Positions
    "Parent of `position`: the hidden state that predicts the column's token."
    row_tokens: int
    "Tokens of the contexts before sharing: what packed rows would have computed."

    def __len__(self) -> int:
        return len(self.token)


def build_tree(contexts: Sequence[Context]) -> TokenTree:
    """The trie over `contexts`, in lexicographic order of their tokens.

    Raises `InvalidDataError` where a trained token has nothing before it, so that nothing predicts it.
    """
    order = sorted((lexical_key(context.tokens), index) for index, context in enumerate(contexts))
    tokens: list[TokenIds] = []
    depths: list[Positions] = []
    found: list[tuple[Positions, Positions, Positions]] = []
    subtree_end = np.zeros(sum(len(c.tokens) for c in contexts), np.int32)
    path = np.zeros(0, np.int64)
    previous = np.zeros(0, np.int32)
    size = 0
    for _, index in order:
        context = contexts[index]
        shared = common_prefix(previous, context.tokens)
        subtree_end[path[shared:]] = size
        length = len(context.tokens)
        tokens.append(context.tokens[shared:])
        depths.append(np.arange(shared, length))
        path = np.concatenate([path[:shared], np.arange(size, size + length - shared)])
        size += length - shared
        previous = context.tokens
        found.append(_columns(context, path))
    subtree_end[path] = size
    column, position, predictor = (_join([part[i] for part in found], np.int64) for i in range(3))
    ascending = np.argsort(column, kind="stable")
    return TokenTree(
        token=_join(tokens, np.int32),
        depth=_join(depths, np.int32),
        subtree_end=subtree_end[:size],
        column=column[ascending],
        position=position[ascending],
        predictor=predictor[ascending],
        row_tokens=len(subtree_end),
    )


def common_prefix(left: TokenIds, right: TokenIds) -> int:
    """How many leading tokens two paths share."""
    length = min(len(left), len(right))
    differ = left[:length] != right[:length]
    first = int(differ.argmax()) if length else 0
    return first if length and differ[first] else length


def lexical_key(tokens: TokenIds) -> bytes:
    """Bytes that sort as the ids do: comparing two paths is one memcmp."""
    return tokens.astype(">u4").tobytes()


def _columns(context: Context, path: Positions) -> tuple[Positions, Positions, Positions]:
    depth = np.flatnonzero(context.column >= 0)
    if depth.size and depth[0] == 0:
        raise InvalidDataError(
            f"column {int(context.column[0])} is the first token of its context, so nothing predicts it; "
            "a context begins with at least one prompt token."
        )
    return context.column[depth], path[depth], path[depth - 1]


def _join(parts: Sequence[npt.NDArray[Any]], dtype: type[Any]) -> npt.NDArray[Any]:
    return np.concatenate(parts).astype(dtype, copy=False) if parts else np.zeros(0, dtype)
