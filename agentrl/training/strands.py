"""Strands of a token tree: paths without a branch, put side by side in blocks so that attention needs no tree.

Rule: every position is owned by exactly one row of one block, and that row holds all its ancestors as keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from agentrl.batch import Bools
from agentrl.training.tree import Positions, TokenTree

CALL_COST = 2**12
"Query-key pairs of padding that are worth less than one more attention call."


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Strands of like size, padded to one shape. Padding repeats a position of the tree and owns nothing."""

    queries: Positions
    "[rows, queries], tree positions."
    keys: Positions
    "[rows, keys], tree positions; the very array `queries` where each row is a path from its root."
    owned: Bools
    "[rows, queries]: what this query reads is what its position reads."
    allowed: Bools | None
    "[rows, queries, keys]; None where query i reads keys 0 to i. Padding reads something too: a softmax over no key "
    "is NaN."


@dataclass(frozen=True, slots=True, eq=False)
class _Strand:
    path: Positions
    "Tree positions from the root to the end of the strand."
    depth: int
    "How many of them are ancestors; the others are the strand's own."

    @property
    def own(self) -> int:
        return len(self.path) - self.depth


Cost = Callable[[int, int], float]
"Query-key pairs of a row, from its own positions (or its whole path) and its ancestors."


def cut(tree: TokenTree) -> list[Block]:
    """Blocks that cover `tree`.

    A path read causally from its root costs half a square, though its ancestors are queries once more; the own
    positions alone cost a rectangle under a mask. Each strand is read in the cheaper way.
    """
    causal: list[tuple[tuple[int, int], _Strand]] = []
    masked: list[tuple[tuple[int, int], _Strand]] = []
    for strand in _strands(tree):
        if strand.own >= strand.depth:
            causal.append(((len(strand.path), 0), strand))
        else:
            masked.append(((strand.own, strand.depth), strand))
    return [
        *(_causal_block(rows) for rows in _alike(causal, lambda whole, _: whole * whole / 2)),
        *(_masked_block(rows) for rows in _alike(masked, lambda own, depth: own * (own + depth))),
    ]


def _strands(tree: TokenTree) -> list[_Strand]:
    """A strand ends at a leaf, and the next one hangs below the ancestors that its first position has."""
    size = len(tree)
    leaf = tree.subtree_end == np.arange(1, size + 1)
    ends = np.flatnonzero(leaf) + 1
    path = np.zeros(0, np.int64)
    found = []
    start = 0
    for end in ends:
        depth = int(tree.depth[start])
        path = np.concatenate([path[:depth], np.arange(start, end)])
        found.append(_Strand(path, depth))
        start = int(end)
    return found


def _alike(sized: Sequence[tuple[tuple[int, int], _Strand]], cost: Cost) -> list[list[_Strand]]:
    """Largest first, each strand to the block that it costs least, or to a block of its own."""
    blocks: list[list[_Strand]] = []
    sizes: list[tuple[int, int]] = []
    for (a, b), strand in sorted(sized, key=lambda item: item[0], reverse=True):
        best, least = -1, cost(a, b) + CALL_COST
        for at, (first, second) in enumerate(sizes):
            grown = cost(max(first, a), max(second, b))
            added = (len(blocks[at]) + 1) * grown - len(blocks[at]) * cost(first, second)
            if added < least:
                best, least = at, added
        if best < 0:
            blocks.append([strand])
            sizes.append((a, b))
        else:
            blocks[best].append(strand)
            sizes[best] = max(sizes[best][0], a), max(sizes[best][1], b)
    return blocks


def _causal_block(rows: Sequence[_Strand]) -> Block:
    longest = max(len(row.path) for row in rows)
    queries = np.stack([_padded(row.path, longest) for row in rows])
    place = np.arange(longest)
    owned = (place >= _column([row.depth for row in rows])) & (place < _column([len(row.path) for row in rows]))
    return Block(queries, queries, owned, None)


def _masked_block(rows: Sequence[_Strand]) -> Block:
    """Keys: the own positions first, which a padded query reads as well, then the ancestors."""
    own, depth = max(row.own for row in rows), max(row.depth for row in rows)
    queries = np.stack([_padded(row.path[row.depth :], own) for row in rows])
    ancestors = np.stack([_padded(row.path[: row.depth], depth) for row in rows])
    allowed = np.empty((len(rows), own, own + depth), np.bool_)
    allowed[:, :, :own] = np.tri(own, dtype=np.bool_)
    allowed[:, :, own:] = (np.arange(depth) < _column([row.depth for row in rows]))[:, None, :]
    owned = np.arange(own) < _column([row.own for row in rows])
    return Block(queries, np.concatenate([queries, ancestors], axis=1), owned, allowed)


def _padded(path: Positions, length: int) -> Positions:
    return np.pad(path, (0, length - len(path)), mode="edge")


def _column(values: Sequence[int]) -> Positions:
    return np.array(values, np.int64)[:, None]
