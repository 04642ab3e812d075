"""Advantages against published numbers (golden vectors of the reference implementations) and their invariants."""

from __future__ import annotations

import numpy as np
import pytest
from builders import make_groups, make_trajectory
from hypothesis import given
from hypothesis import strategies as st

from agentrl.batch import StepTable, build_table
from agentrl.credit.baselines import center
from agentrl.credit.returns import step_returns
from agentrl.credit.rules import AnchorCredit, EpisodeCredit, StepReturnCredit, WeightedSum
from agentrl.methods.groups import lite_ppo
from agentrl.methods.steps import eapo, step_return

OUTCOMES = np.array([1, 0, 0, 1, 0.5, 0.5, 0.7])
GROUPS = np.array([0, 0, 0, 0, 1, 1, 2])


def gigpo_table() -> StepTable:
    return build_table(
        make_groups(
            g=[
                make_trajectory("t1", "g", [0, 0, 10], states=["s0", "s1", "s2"]),
                make_trajectory("t2", "g", [0, 0], states=["s0", "s1"]),
                make_trajectory("t3", "g", [10], states=["s0"]),
            ]
        )
    )


def test_grpo_reproduces_the_reference() -> None:
    with_std = center(OUTCOMES, GROUPS, scale="group", singleton="raw")
    np.testing.assert_allclose(with_std, [0.866024, -0.866024, -0.866024, 0.866024, 0, 0, 0.699999], atol=2e-6)
    without = center(OUTCOMES, GROUPS, scale="none", singleton="raw")
    np.testing.assert_allclose(without, [0.5, -0.5, -0.5, 0.5, 0, 0, 0.7], atol=1e-12)


def test_leave_one_out_reproduces_the_reference() -> None:
    got = center(OUTCOMES, GROUPS, scale="none", baseline="leave_one_out", singleton="raw")
    np.testing.assert_allclose(got, [2 / 3, -2 / 3, -2 / 3, 2 / 3, 0, 0, 0.7], atol=1e-12)


def test_step_returns_of_gigpo() -> None:
    np.testing.assert_allclose(step_returns(gigpo_table(), 0.95), [9.025, 9.5, 10, 0, 0, 10])


def test_gigpo_mean_normalisation_reproduces_the_reference() -> None:
    table = gigpo_table()
    episode = EpisodeCredit(scale="none", statistics="trajectory")(table)
    np.testing.assert_allclose(episode, [10 / 3] * 3 + [-20 / 3] * 2 + [10 / 3], atol=1e-6)
    step = AnchorCredit(gamma=0.95, scale="none")(table)
    np.testing.assert_allclose(step, [2.683333, 4.75, 0, -6.341667, -4.75, 3.658333], atol=1e-6)
    total = WeightedSum(((1.0, EpisodeCredit(scale="none")), (1.0, AnchorCredit(scale="none"))))(table)
    np.testing.assert_allclose(total, [6.016666, 8.083334, 3.333333, -13.008333, -11.416666, 6.991667], atol=2e-6)


def test_gigpo_deviation_normalisation_reproduces_the_reference() -> None:
    table = gigpo_table()
    pooled = EpisodeCredit(scale="group", statistics="pooled")(table)
    np.testing.assert_allclose(pooled, [0.645497] * 3 + [-1.290994] * 2 + [0.645497], atol=1e-6)
    per_trajectory = EpisodeCredit(scale="group")(table)
    np.testing.assert_allclose(per_trajectory, [0.57735] * 3 + [-1.1547] * 2 + [0.57735], atol=1e-6)
    step = AnchorCredit(gamma=0.95, scale="group")(table)
    np.testing.assert_allclose(step, [0.486672, 0.707107, 0, -1.150178, -0.707107, 0.663506], atol=1e-6)
    total = WeightedSum(((1.0, EpisodeCredit(statistics="pooled")), (1.0, AnchorCredit())))(table)
    np.testing.assert_allclose(total, [1.132169, 1.352604, 0.645497, -2.441172, -1.998101, 1.309003], atol=2e-6)


def test_lite_ppo_divides_by_the_deviation_of_the_batch() -> None:
    table = build_table(
        make_groups(
            g=[make_trajectory("a", "g", [1]), make_trajectory("b", "g", [0])],
            h=[make_trajectory("c", "h", [3]), make_trajectory("d", "h", [0])],
        )
    )
    # Means .5 and 1.5; around the batch's mean of 1 the squares are 0, 1, 4, 1, over three.
    np.testing.assert_allclose(lite_ppo().credit(table), np.array([0.5, -0.5, 1.5, -1.5]) / np.sqrt(2), atol=1e-5)


def test_step_returns_are_compared_over_all_steps_of_a_group() -> None:
    table = build_table(make_groups(g=[make_trajectory("a", "g", [0, 1]), make_trajectory("b", "g", [0, 0])]))
    # Half of what comes after: .5, 1, 0, 0, of mean 3/8; 64 times the squares are 1, 25, 9, 9, over three.
    want = np.array([1, 5, -3, -3]) / 8 / np.sqrt(44 / 64 / 3)
    for method in (step_return(gamma=0.5), eapo(gamma=0.5)):
        np.testing.assert_allclose(method.credit(table), want, atol=1e-5)
    np.testing.assert_allclose(step_return(gamma=0.5, scale="none").credit(table), [0.125, 0.625, -0.375, -0.375])


def test_anchors_never_meet_across_groups() -> None:
    table = build_table(
        make_groups(
            a=[make_trajectory("a1", "a", [1], states=["same"])], b=[make_trajectory("b1", "b", [0], states=["same"])]
        )
    )
    np.testing.assert_array_equal(AnchorCredit()(table), [0.0, 0.0])


def test_steps_without_anchor_get_no_step_credit() -> None:
    table = build_table(
        make_groups(a=[make_trajectory("x", "a", [1], states=[None]), make_trajectory("y", "a", [0], states=[None])])
    )
    np.testing.assert_array_equal(AnchorCredit()(table), [0.0, 0.0])


rewards = st.floats(-5, 5, allow_nan=False, width=32)
groups_of_rewards = st.lists(
    st.lists(st.lists(rewards, min_size=1, max_size=4), min_size=1, max_size=5), min_size=1, max_size=4
)


def table_of(groups: list[list[list[float]]]) -> StepTable:
    named = {
        f"g{i}": [
            make_trajectory(f"g{i}t{j}", f"g{i}", steps, states=[f"s{k % 2}" for k in range(len(steps))])
            for j, steps in enumerate(members)
        ]
        for i, members in enumerate(groups)
    }
    return build_table(make_groups(**named))


RULES = [
    EpisodeCredit(scale="none"),
    EpisodeCredit(scale="group"),
    EpisodeCredit(scale="batch"),
    EpisodeCredit(scale="none", baseline="leave_one_out"),
    EpisodeCredit(statistics="pooled"),
    AnchorCredit(),
    AnchorCredit(scale="none"),
    StepReturnCredit(),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
@given(groups=groups_of_rewards, seed=st.integers(0, 1000))
def test_credit_follows_a_permutation_of_the_rows(
    rule: EpisodeCredit, groups: list[list[list[float]]], seed: int
) -> None:
    table = table_of(groups)
    order = np.random.default_rng(seed).permutation(len(table))
    columns = {
        name: column[order]
        for name in StepTable.__dataclass_fields__
        if isinstance(column := getattr(table, name), np.ndarray)
    }
    shuffled = StepTable(**columns, tasks=table.tasks, scores={})
    np.testing.assert_allclose(rule(shuffled), rule(table)[order], atol=1e-9)


@given(groups=groups_of_rewards, shift=st.sampled_from([-2.0, 0.5, 4.0]))
def test_episode_credit_sums_to_zero_and_ignores_a_shift(groups: list[list[list[float]]], shift: float) -> None:
    table = table_of(groups)
    for scale in ("none", "group"):
        credit = EpisodeCredit(scale=scale, singleton="zero")(table)
        first = table.index == 0
        sums = np.bincount(table.group[first], weights=credit[first])
        np.testing.assert_allclose(sums, 0, atol=1e-6)
        moved = [[[steps[0] + shift, *steps[1:]] for steps in members] for members in groups]
        if scale == "none":
            np.testing.assert_allclose(EpisodeCredit(scale=scale)(table_of(moved)), credit, atol=1e-6)


@given(value=rewards, members=st.integers(2, 15), scale=st.sampled_from(["none", "group", "batch"]))
def test_equal_rewards_give_exactly_zero(value: float, members: int, scale: str) -> None:
    credit = center(np.full(members, value), np.zeros(members, np.int64), scale=scale)  # type: ignore[arg-type]
    assert not credit.any()


@given(values=st.lists(rewards, min_size=2, max_size=9))
def test_leave_one_out_is_a_multiple_of_the_plain_difference(values: list[float]) -> None:
    n, ids = len(values), np.zeros(len(values), np.int64)
    plain = center(np.array(values), ids, scale="none")
    loo = center(np.array(values), ids, scale="none", baseline="leave_one_out")
    np.testing.assert_allclose(loo, plain * n / (n - 1), atol=1e-9)
