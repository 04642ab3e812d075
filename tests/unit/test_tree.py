"""The trie: each distinct prefix once, ancestors by one inequality, columns at their tokens."""

from __future__ import annotations

import numpy as np
import pytest
from forests import random_batch, random_groups
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.batch import Context, build_batch
from agentrl.errors import InvalidDataError
from agentrl.training.tree import TokenTree, build_tree, common_prefix

PATHS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), min_size=1, max_size=8)


def contexts_of(paths: list[list[int]]) -> list[Context]:
    """Every token but the first of each path is a column."""
    found, start = [], 0
    for path in paths:
        column = np.arange(start - 1, start + len(path) - 1, dtype=np.int64)
        column[0] = -1
        found.append(Context(np.array(path, np.int32), column))
        start += len(path) - 1
    return found


def ancestors(tree: TokenTree, position: int) -> list[int]:
    j = np.arange(len(tree))
    return [int(i) for i in np.flatnonzero((j <= position) & (position < tree.subtree_end))]


@given(PATHS)
@settings(max_examples=150, deadline=None)
def test_the_ancestors_of_a_column_spell_its_path(paths: list[list[int]]) -> None:
    tree = build_tree(contexts_of(paths))
    wanted = [path[: end + 1] for path in paths for end in range(1, len(path))]
    assert tree.column.tolist() == list(range(len(wanted)))
    for position, predictor, prefix in zip(tree.position, tree.predictor, wanted, strict=True):
        path = ancestors(tree, int(position))
        assert tree.token[path].tolist() == prefix
        assert tree.depth[path].tolist() == list(range(len(prefix)))
        assert path[-2] == predictor


@given(PATHS)
@settings(max_examples=150, deadline=None)
def test_every_distinct_prefix_has_one_position(paths: list[list[int]]) -> None:
    tree = build_tree(contexts_of(paths))
    assert len(tree) == len({tuple(path[: end + 1]) for path in paths for end in range(len(path))})
    assert tree.row_tokens == sum(map(len, paths))


def test_identical_samples_share_a_position_and_keep_their_columns() -> None:
    tree = build_tree(contexts_of([[1, 2, 3], [1, 2, 3]]))
    assert tree.token.tolist() == [1, 2, 3]
    assert tree.position.tolist() == [1, 2, 1, 2]


def test_a_realistic_batch_shares_its_system_prompt_between_groups() -> None:
    groups = random_groups(0)
    batch = build_batch(groups)
    tree = build_tree(batch.contexts)
    assert int((tree.depth == 0).sum()) == 1
    assert sorted(tree.column) == list(range(len(batch.columns)))
    assert (tree.token[tree.position] == batch.columns.token[tree.column]).all()


def test_the_tree_does_not_depend_on_the_order_of_contexts() -> None:
    contexts = list(random_batch(3).contexts)
    one, other = build_tree(contexts), build_tree(contexts[::-1])
    assert one.token.tolist() == other.token.tolist()
    assert one.position.tolist() == other.position.tolist()


def test_a_sampled_token_without_a_prompt_is_refused() -> None:
    with pytest.raises(InvalidDataError, match="column 0 is the first token"):
        build_tree([Context(np.array([5, 6], np.int32), np.array([0, 1]))])


@pytest.mark.parametrize(
    ("left", "right", "shared"), [([], [1], 0), ([1, 2], [1, 2], 2), ([1, 2, 3], [1, 2], 2), ([1, 9], [1, 2, 3], 1)]
)
def test_common_prefix(left: list[int], right: list[int], shared: int) -> None:
    assert common_prefix(np.array(left, np.int32), np.array(right, np.int32)) == shared
