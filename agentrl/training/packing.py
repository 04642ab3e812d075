"""Micro-batches: a batch cut into token trees of bounded size.

Rule: all contexts of a trajectory lie in one micro-batch, so that an objective over a step or a trajectory sees it
whole; together the micro-batches hold every column of the chosen trajectories exactly once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agentrl.batch import Context, Ints, TrainingBatch
from agentrl.errors import ConfigError
from agentrl.training.tree import Positions, TokenTree, build_tree, common_prefix, lexical_key
from agentrl.types import TokenIds


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """One forward and backward. `row` and `trajectory` have one entry per column of the tree, numbered from 0."""

    tree: TokenTree
    row: Positions
    trajectory: Positions


def pack(batch: TrainingBatch, trajectories: Positions, micro_batch_tokens: int) -> list[MicroBatch]:
    """Greedy, group after group, so that siblings share their prefix.

    `trajectories` are ids of the table. A trajectory of more than `micro_batch_tokens` tree tokens goes alone.
    """
    if micro_batch_tokens < 1:
        raise ConfigError(f"micro_batch_tokens is {micro_batch_tokens}; give at least 1.")
    contexts = _contexts_by_trajectory(batch)
    group = np.zeros(batch.table.trajectories, np.int64)
    group[batch.table.trajectory] = batch.table.group
    chosen = np.asarray(trajectories, np.int64)
    packed: list[list[Context]] = []
    bin_ = _Bin()
    for trajectory in chosen[np.lexsort((chosen, group[chosen]))]:
        own = contexts.get(int(trajectory), [])
        if not own:
            continue
        fuller = bin_.with_(own)
        if bin_.contexts and fuller.size > micro_batch_tokens:
            packed.append(bin_.contexts)
            fuller = _Bin().with_(own)
        bin_ = fuller
    if bin_.contexts:
        packed.append(bin_.contexts)
    return [_micro_batch(batch, members) for members in packed]


class _Bin:
    """Contexts in lexical order, where a new path costs its length less what it shares with its neighbours."""

    def __init__(self) -> None:
        self.contexts: list[Context] = []
        self.size = 0
        self._keys: list[bytes] = []
        self._paths: list[TokenIds] = []

    def with_(self, contexts: Sequence[Context]) -> _Bin:
        """A new one, with these added."""
        grown = _Bin()
        grown.contexts = [*self.contexts, *contexts]
        grown._keys, grown._paths, grown.size = list(self._keys), list(self._paths), self.size
        for context in contexts:
            grown._insert(context)
        return grown

    def _insert(self, context: Context) -> None:
        key = lexical_key(context.tokens)
        at = bisect_left(self._keys, key)
        neighbours = self._paths[max(at - 1, 0) : at + 1]
        shared = max((common_prefix(path, context.tokens) for path in neighbours), default=0)
        self.size += len(context.tokens) - shared
        self._keys.insert(at, key)
        self._paths.insert(at, context.tokens)


def _contexts_by_trajectory(batch: TrainingBatch) -> dict[int, list[Context]]:
    """Contexts that train nothing (all their sampled tokens stand in another one) are left out."""
    owner = batch.table.trajectory[batch.columns.row]
    found: dict[int, list[Context]] = {}
    for context in batch.contexts:
        columns = context.column[context.column >= 0]
        if columns.size:
            found.setdefault(int(owner[columns[0]]), []).append(context)
    return found


def _micro_batch(batch: TrainingBatch, contexts: Sequence[Context]) -> MicroBatch:
    tree = build_tree(contexts)
    row = batch.columns.row[tree.column]
    return MicroBatch(tree, _local(row), _local(batch.table.trajectory[row]))


def _local(ids: Ints) -> Positions:
    return np.unique(ids, return_inverse=True)[1].astype(np.int64)
