"""Packing: whole trajectories, every column once, within the budget."""

from __future__ import annotations

import numpy as np
import pytest
from forests import random_batch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.errors import ConfigError
from agentrl.training.packing import pack
from agentrl.training.tree import build_tree


@given(st.integers(0, 50), st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_micro_batches_hold_every_column_once_and_trajectories_whole(seed: int, budget: int) -> None:
    batch = random_batch(seed)
    everything = np.arange(batch.table.trajectories)
    micros = pack(batch, everything, budget)
    assert sorted(np.concatenate([m.tree.column for m in micros])) == list(range(len(batch.columns)))
    owners = [set(batch.table.trajectory[batch.columns.row[m.tree.column]].tolist()) for m in micros]
    assert sum(map(len, owners)) == len(set.union(*owners))
    for micro, owner in zip(micros, owners, strict=True):
        assert len(micro.tree) <= budget or len(owner) == 1


def test_one_big_budget_shares_all_that_can_be_shared() -> None:
    batch = random_batch(1)
    (micro,) = pack(batch, np.arange(batch.table.trajectories), 10**6)
    assert len(micro.tree) == len(build_tree(batch.contexts))


def test_only_the_chosen_trajectories_are_computed() -> None:
    batch = random_batch(2)
    (micro,) = pack(batch, np.array([0, 5]), 10**6)
    assert set(batch.table.trajectory[batch.columns.row[micro.tree.column]]) == {0, 5}


def test_segment_ids_are_local_and_follow_rows_and_trajectories() -> None:
    batch = random_batch(4)
    for micro in pack(batch, np.arange(batch.table.trajectories), 90):
        rows = batch.columns.row[micro.tree.column]
        assert sorted(set(micro.row)) == list(range(len(set(rows))))
        assert len({*zip(rows, micro.row, strict=True)}) == len(set(rows))
        owners = batch.table.trajectory[rows]
        assert len({*zip(owners, micro.trajectory, strict=True)}) == len(set(owners))


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="micro_batch_tokens is 0"):
        pack(random_batch(0), np.arange(3), 0)
