"""Credit by a task's past, by likelihood and by the place of tool calls: worked by hand, and what they never do."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from builders import make_groups, make_step, make_trajectory
from hypothesis import given
from hypothesis import strategies as st

from agentrl.batch import build_table
from agentrl.credit.rules import EpisodeCredit
from agentrl.credit.shaping import FIRST_CALL, FirstCalls, PositionBonus, Unlikeliness
from agentrl.credit.tracked import TrackedCredit
from agentrl.errors import TrainingError
from agentrl.estimates import WinRates
from agentrl.methods import shaped
from agentrl.types import Action, Group, Status, ToolCall, Trajectory


def sampled(name: str, reward: float, logprobs: list[float], called: int | None = None) -> Trajectory:
    """Two steps that share the tokens, `called` the one with a tool call."""
    half = len(logprobs) // 2
    parts = (logprobs[:half], logprobs[half:])
    steps = []
    for index, part in enumerate(parts):
        step = make_step(name, index, reward=reward * index, tokens=range(3, 3 + len(part)), logprobs=part)
        calls = (ToolCall("look", {}),) if called == index else ()
        steps.append(replace(step, action=Action("x", calls)))
    trajectory = make_trajectory(name, "g", [0.0])
    return replace(trajectory, steps=tuple(steps), status=Status.OK)


def test_spo_compares_with_the_past_and_learns_afterwards() -> None:
    rule = TrackedCredit(WinRates(decay=0.5, prior=1.0))
    groups = make_groups(g=[make_trajectory("a", "g", [0, 1])], h=[make_trajectory("b", "h", [0])])
    table = build_table(groups)
    # Nothing is known: .5 and -.5, whitened over two trajectories, whatever their steps.
    np.testing.assert_allclose(rule(table), [np.sqrt(0.5), np.sqrt(0.5), -np.sqrt(0.5)], atol=1e-6)
    assert rule.rates.counts == {}, "asking teaches nothing"
    rule.remember(table)
    assert rule.rates.rate("g") == 0.75 and rule.rates.rate("h") == 0.25
    other = make_groups(
        g=[make_trajectory("c", "g", [1])], h=[make_trajectory("d", "h", [1])], i=[make_trajectory("e", "i", [0])]
    )
    plain = np.array([0.25, 0.75, -0.5])
    np.testing.assert_allclose(rule(build_table(other)), (plain - plain.mean()) / plain.std(ddof=1), atol=1e-6)


def test_spo_goes_on_from_its_checkpoint_and_needs_no_group() -> None:
    first, second = shaped.spo(), shaped.spo()
    first.check(1)
    batches = [
        make_groups(**{name: [make_trajectory(name, name, [float(reward)])] for name, reward in outcome.items()})
        for outcome in ({"a": 1, "b": 0}, {"a": 0, "b": 0, "c": 1})
    ]
    before = first.batch(batches[0])
    assert before.has_signal
    second.restore(json.loads(json.dumps(first.state())))
    np.testing.assert_array_equal(first.batch(batches[1]).advantage, second.batch(batches[1]).advantage)
    fresh = shaped.spo().batch(batches[1]).advantage
    assert not np.allclose(first.batch(batches[1]).advantage, fresh)


def test_spo_refuses_returns_that_are_no_rates() -> None:
    with pytest.raises(TrainingError, match=r"from 0 to 1; this batch has returns from -1 to 1.*grpo"):
        shaped.spo().batch(make_groups(g=[make_trajectory("a", "g", [-1]), make_trajectory("b", "g", [1])]))


def test_rare_successes_keep_more_of_their_reward() -> None:
    members = [
        sampled("likely", 1.0, [-0.1, -0.1]),
        sampled("rare", 1.0, [-2.0, -2.0]),
        sampled("between", 1.0, [-1.0, -1.0, -1.0, -1.0]),
        sampled("likeliest, lost", 0.0, [-0.01, -0.01]),
    ]
    groups = [Group("g", members[0].task, tuple(members))]
    table = Unlikeliness(0.25)(groups, build_table(groups))
    got = np.bincount(table.trajectory, weights=table.reward)
    # By mean log-probability 2, 0 and 1 members are less likely; a failure keeps its 0.
    np.testing.assert_allclose(got, [1 - 0.25 * 2 / 4, 1.0, 1 - 0.25 / 4, 0.0])
    batch = shaped.unlikeliness().batch(groups)
    best = batch.advantage[np.isin(batch.columns.row, np.flatnonzero(batch.table.trajectory == 1))]
    assert best.min() == batch.advantage.max()


def test_equally_likely_successes_stay_equal() -> None:
    members = [sampled(name, 1.0, [-0.5, -0.5]) for name in "abc"]
    groups = [Group("g", members[0].task, tuple(members))]
    assert not shaped.unlikeliness().batch(groups).advantage.any()


def test_a_success_gains_by_calling_early() -> None:
    members = [
        sampled("early", 1.0, [-1.0] * 4, called=0),
        sampled("late", 1.0, [-1.0] * 4, called=1),
        sampled("never", 1.0, [-1.0] * 4),
        sampled("lost", 0.0, [-1.0] * 4, called=0),
    ]
    groups = [Group("g", members[0].task, tuple(members))]
    table = FirstCalls()(groups, build_table(groups))
    np.testing.assert_array_equal(table.scores[FIRST_CALL], [0, 0, 2, 2, -1, -1, 0, 0])
    plain = EpisodeCredit(scale="none")(table)
    np.testing.assert_allclose(plain, [0.25] * 6 + [-0.75] * 2)
    # Places 0 and 2, mean 1, length 4: 1/4 early and -1/4 late, cut at half of .25.
    got = PositionBonus(EpisodeCredit(scale="none"), strength=1.0, bound=0.5)(table)
    np.testing.assert_allclose(got, [0.375] * 2 + [0.125] * 2 + [0.25] * 2 + [-0.75] * 2)
    gentle = PositionBonus(EpisodeCredit(scale="none"), strength=0.2, bound=0.5)(table)
    np.testing.assert_allclose(gentle, [0.3] * 2 + [0.2] * 2 + [0.25] * 2 + [-0.75] * 2)
    with pytest.raises(TrainingError, match="add FirstCalls"):
        PositionBonus(EpisodeCredit())(build_table(groups))


@given(
    rewards=st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=6),
    strength=st.floats(-5, 5),
    bound=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_a_bonus_by_position_never_turns_a_sign(rewards: list[float], strength: float, bound: float, seed: int) -> None:
    dice = np.random.default_rng(seed)
    members = [
        sampled(f"t{i}", r, [-1.0] * int(dice.integers(2, 6)), called=[None, 0, 1][int(dice.integers(3))])
        for i, r in enumerate(rewards)
    ]
    groups = [Group("g", members[0].task, tuple(members))]
    table = FirstCalls()(groups, build_table(groups))
    plain = EpisodeCredit()(table)
    got = PositionBonus(EpisodeCredit(), strength, bound)(table)
    assert (got * plain >= 0).all()
    np.testing.assert_array_equal(got[plain <= 0], plain[plain <= 0])
    assert (np.abs(got - plain) <= bound * np.abs(plain) + 1e-12).all()
