"""The sequential sampler: every task once an epoch, and the same walk after a restart."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.errors import ConfigError, InvalidDataError, StoreError
from agentrl.tasks.samplers import SequentialSampler
from agentrl.types import Task


def finite(count: int) -> Callable[[], Iterable[Task]]:
    return lambda: (Task(f"t{index}", "e") for index in range(count))


def endless() -> Iterable[Task]:
    return (Task(f"t{index}", "e") for index in itertools.count())


def draw(sampler: SequentialSampler, counts: Iterable[int]) -> list[str]:
    return [task.id for count in counts for task in sampler.next(count)]


@given(
    size=st.integers(1, 30),
    window=st.integers(1, 12),
    seed=st.integers(0, 99),
    before=st.lists(st.integers(0, 9), max_size=8),
    after=st.lists(st.integers(1, 9), min_size=1, max_size=8),
)
def test_the_walk_goes_on_after_a_restart_as_if_nothing_had_happened(
    size: int, window: int, seed: int, before: list[int], after: list[int]
) -> None:
    sampler = SequentialSampler(finite(size), seed, window)
    drawn = draw(sampler, before)
    state = json.loads(json.dumps(sampler.state()))
    other = SequentialSampler(finite(size), seed, window)
    other.restore(state)
    drawn += (rest := draw(sampler, after))
    assert draw(other, after) == rest
    assert other.state() == sampler.state()
    for first in range(0, len(drawn), size):
        epoch = drawn[first : first + size]
        assert len(set(epoch)) == len(epoch)
        assert len(epoch) < size or set(epoch) == {f"t{index}" for index in range(size)}


def test_one_draw_of_five_is_five_draws_of_one() -> None:
    one, five = SequentialSampler(finite(7), 3), SequentialSampler(finite(7), 3)
    assert draw(one, [1] * 20) == draw(five, [5] * 4)


def test_epochs_and_seeds_are_shuffled_differently() -> None:
    sampler = SequentialSampler(finite(50), 0)
    first, second = draw(sampler, [50]), draw(sampler, [50])
    assert first != second != sorted(second) and sorted(first) == sorted(second)
    assert draw(SequentialSampler(finite(50), 1), [50]) != first


def test_an_endless_set_is_walked_without_repeats() -> None:
    sampler = SequentialSampler(endless, 5, window=8)
    drawn = draw(sampler, [20])
    assert len(set(drawn)) == 20 and set(drawn[:8]) == {f"t{index}" for index in range(8)}
    assert sampler.state()["epoch"] == 0


def test_bad_sets_and_states_are_told() -> None:
    with pytest.raises(ConfigError, match="no tasks"):
        SequentialSampler(finite(0)).next(1)
    with pytest.raises(InvalidDataError, match="two tasks have the id 't0'"):
        SequentialSampler(lambda: [Task("t0", "e"), Task("t0", "e")]).next(1)
    with pytest.raises(ConfigError, match="begun with seed 1"):
        SequentialSampler(finite(3), 2).restore(SequentialSampler(finite(3), 1).state())
    with pytest.raises(ConfigError, match="no state"):
        SequentialSampler(finite(3)).restore({"cursor": 1})
    shrunk = SequentialSampler(finite(2))
    shrunk.restore({"seed": 0, "window": 512, "epoch": 0, "position": 5})
    with pytest.raises(StoreError, match="has 2 tasks; the run had used 5"):
        shrunk.next(1)
