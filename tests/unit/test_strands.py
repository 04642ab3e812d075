"""Strands and their blocks against the tree that they were cut from."""

from __future__ import annotations

import numpy as np
import pytest
from forests import ancestry, random_batch

from agentrl.batch import Context
from agentrl.training.strands import Block, cut
from agentrl.training.tree import TokenTree, build_tree


def forest(seed: int) -> TokenTree:
    return build_tree(random_batch(seed, groups=3, members=5, steps=6, longest=14).contexts)


def allowed(block: Block) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    rows, size = block.queries.shape
    if block.allowed is not None:
        return block.allowed
    assert block.keys is block.queries
    return np.broadcast_to(np.tri(size, dtype=np.bool_), (rows, size, size))


@pytest.mark.parametrize("seed", range(8))
def test_blocks_own_every_position_once_and_show_it_its_ancestors_once(seed: int) -> None:
    tree = forest(seed)
    owned, seen = np.zeros(len(tree), np.int64), np.zeros((len(tree), len(tree)), np.int64)
    for block in cut(tree):
        np.add.at(owned, block.queries[block.owned], 1)
        may = allowed(block)
        for row, place in np.argwhere(block.owned):
            np.add.at(seen[block.queries[row, place]], block.keys[row][may[row, place]], 1)
    assert (owned == 1).all()
    assert (seen == ancestry(tree)).all()


@pytest.mark.parametrize("seed", range(4))
def test_no_query_reads_nothing(seed: int) -> None:
    for block in cut(forest(seed)):
        assert allowed(block).any(-1).all()


def test_short_answers_below_a_long_prompt_do_not_read_the_prompt_again() -> None:
    rng = np.random.default_rng(0)
    prompt = rng.integers(0, 50, 90)
    paths = [np.concatenate([prompt, [50 + answer], rng.integers(0, 50, 20)]).astype(np.int32) for answer in range(8)]
    blocks = cut(build_tree([Context(path, np.full(len(path), -1, np.int64)) for path in paths]))
    assert [(block.queries.shape, block.keys.shape) for block in blocks] == [((1, 111), (1, 111)), ((7, 21), (7, 111))]


def test_rows_of_unlike_length_are_not_padded_to_the_longest() -> None:
    lengths = (500, 496, 60, 50)
    paths = [np.full(length, token, np.int32) for token, length in enumerate(lengths)]
    blocks = cut(build_tree([Context(path, np.full(len(path), -1, np.int64)) for path in paths]))
    assert [block.queries.shape for block in blocks] == [(2, 500), (2, 60)]
