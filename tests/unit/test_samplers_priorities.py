"""Samplers by win rate: what an estimate is, what it does to the next draws, and the same draws after a restart."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable

import pytest
from builders import make_trajectory
from hypothesis import given
from hypothesis import strategies as st

from agentrl.errors import ConfigError
from agentrl.estimates import WinRates
from agentrl.tasks.priorities import MediumSampler, PrioritySampler
from agentrl.types import Group, Task

MAKERS: dict[str, Callable[[], PrioritySampler | MediumSampler]] = {
    "priority": lambda: PrioritySampler(tasks, 3),
    "medium": lambda: MediumSampler(tasks, 3),
}


def tasks() -> Iterable[Task]:
    return (Task(f"t{number}", "e", tags=("odd" if number % 2 else "even",)) for number in range(12))


def result(name: str, *returns: float, tag: str = "odd") -> Group:
    members = tuple(make_trajectory(f"m{i}", "g", [value]) for i, value in enumerate(returns))
    return Group("g", Task(name, "e", tags=(tag,)), members)


def test_a_win_rate_by_hand() -> None:
    rates = WinRates(decay=0.5, prior=1.0)
    assert rates.rate("a") == 0.5
    rates.learn("a", 1.0)
    # alpha 1 / 2 + 1, beta 1 / 2.
    assert rates.rate("a") == pytest.approx(1.5 / 2.0)
    rates.learn("a", 0.25)
    # alpha 1.5 / 2 + .25, beta .5 / 2 + .75.
    assert rates.rate("a") == pytest.approx(1.0 / 2.0)
    assert rates.counts["a"] == (1.0, 1.0)


@given(value=st.floats(0, 1), decay=st.floats(0, 1), times=st.integers(1, 20))
def test_a_win_rate_lies_between_its_prior_and_what_came(value: float, decay: float, times: int) -> None:
    rates = WinRates(decay=decay)
    for _ in range(times):
        before = rates.rate("a")
        rates.learn("a", value)
        low, high = sorted((before, value))
        assert low - 1e-9 <= rates.rate("a") <= high + 1e-9


def test_win_rates_forget_the_task_that_was_not_seen_for_longest() -> None:
    rates = WinRates(most=2)
    for name in ("a", "b", "a", "c"):
        rates.learn(name, 1.0)
    assert list(rates.counts) == ["a", "c"] and rates.rate("b") == 0.5
    other = WinRates(most=2)
    other.restore(json.loads(json.dumps(rates.state())))
    assert other.counts == rates.counts
    with pytest.raises(ConfigError, match="holds no win rates"):
        other.restore({"a": 3})
    with pytest.raises(ConfigError, match="decay lies from 0 to 1"):
        WinRates(decay=1.5)


def test_priority_is_the_spread_of_the_outcome() -> None:
    sampler = PrioritySampler(tasks, epsilon=0.05, decay=1.0)
    sampler.observe(result("t1", 1, 1, 1))
    # alpha 3.5, beta .5; its tag has the same, and t2's tag nothing.
    assert sampler.rate(Task("t1", "e")) == pytest.approx(3.5 / 4)
    spread = math.sqrt(3.5 / 4 * 0.5 / 4)
    assert sampler.weight(Task("t1", "e")) == pytest.approx(spread + 0.05)
    assert sampler.weight(Task("t3", "e", tags=("odd",))) == pytest.approx(spread + 0.05)
    assert sampler.weight(Task("t2", "e", tags=("even",))) == pytest.approx(0.55)


def test_priority_draws_as_often_as_its_weights_say() -> None:
    sampler = PrioritySampler(tasks, 1, decay=1.0)
    for number in range(0, 12, 2):
        sampler.observe(result(f"t{number}", *[1.0] * 20, tag="even"))
    even, odd = (sampler.weight(Task(name, "e", tags=(tag,))) for name, tag in (("t0", "even"), ("t1", "odd")))
    assert even < odd / 2
    # A fresh sampler each time: nothing pauses.
    first = []
    for seed in range(2000):
        fresh = PrioritySampler(tasks, seed, decay=1.0)
        fresh.restore({**sampler.state(), "pausing": []})
        first.append(int(fresh.next(1)[0].id[1:]) % 2)
    assert sum(first) / 2000 == pytest.approx(odd / (odd + even), abs=0.04)


def test_medium_takes_what_is_won_half_of_the_time() -> None:
    sampler = MediumSampler(tasks, candidates=12)
    for number in range(12):
        returns = (1, 0, 1, 0) if number in (3, 8) else (1, 1, 1, 1) if number % 2 else (0, 0, 0, 0)
        sampler.observe(result(f"t{number}", *returns, tag="odd" if number % 2 else "even"))
    assert {task.id for task in sampler.next(2)} == {"t3", "t8"}
    low = MediumSampler(tasks, candidates=12, target=0.0)
    low.restore(sampler.state())
    assert all(int(task.id[1:]) % 2 == 0 for task in low.next(3))


@pytest.mark.parametrize("kind", MAKERS)
@given(
    before=st.lists(st.tuples(st.integers(0, 11), st.lists(st.sampled_from([0.0, 1.0]))), max_size=8),
    counts=st.lists(st.integers(1, 15), max_size=4),
)
def test_draws_go_on_after_a_restart_as_if_nothing_had_happened(
    kind: str, before: list[tuple[int, list[float]]], counts: list[int]
) -> None:
    sampler, other = MAKERS[kind](), MAKERS[kind]()
    for count in counts:
        sampler.next(count)
    for number, returns in before:
        sampler.observe(result(f"t{number}", *returns))
    other.restore(json.loads(json.dumps(sampler.state())))
    assert other.state() == sampler.state()
    late = result("t1", 1.0, 0.0)
    for each in (sampler, other):
        each.observe(late)
    assert [task.id for task in other.next(20)] == [task.id for task in sampler.next(20)]


@pytest.mark.parametrize("kind", MAKERS)
def test_one_draw_of_five_is_five_draws_of_one_and_a_task_pauses(kind: str) -> None:
    one, five = MAKERS[kind](), MAKERS[kind]()
    drawn = [task.id for _ in range(20) for task in one.next(1)]
    assert drawn == [task.id for _ in range(4) for task in five.next(5)]
    assert all(len(set(drawn[place : place + 7])) == 7 for place in range(14))


def test_bad_options_and_states_are_told() -> None:
    with pytest.raises(ConfigError, match="no tasks"):
        PrioritySampler(lambda: ())
    with pytest.raises(ConfigError, match="never drawn again"):
        PrioritySampler(tasks, epsilon=0.0)
    with pytest.raises(ConfigError, match="candidates"):
        MediumSampler(tasks, candidates=0)
    with pytest.raises(ConfigError, match="no state of a sampler by win rate"):
        PrioritySampler(tasks).restore({"position": 3})
