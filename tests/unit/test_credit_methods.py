"""Rules beside GRPO's: published numbers where there are some, hand-worked ones and identities where not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from builders import make_groups, make_trajectory
from hypothesis import given
from hypothesis import strategies as st

from agentrl.batch import StepTable, build_batch, build_table
from agentrl.credit.baselines import whiten
from agentrl.credit.curation import Balance, DropEqual, DropTruncated, MaximumVariance
from agentrl.credit.outcome import (
    BetaNormalisedCredit,
    LengthWeightedCredit,
    RelativeCredit,
    SignalScaledCredit,
    Whitened,
)
from agentrl.credit.returns import step_returns, token_returns
from agentrl.credit.rules import EpisodeCredit, StepReturnCredit
from agentrl.credit.segments import Doubles, Places, dense_ids, suffix_sums
from agentrl.credit.turns import (
    BranchCredit,
    HardAttribution,
    ReturnToGo,
    StepGAE,
    TermCredit,
    TurnCredit,
    generalised_advantages,
)
from agentrl.errors import TrainingError
from agentrl.method import Method
from agentrl.methods import entropy, forks, groups, steps
from agentrl.types import Group, Status, Task, Trajectory

Rule = Callable[[StepTable], Doubles]


def golden_table() -> StepTable:
    rewards: dict[str, list[float]] = {"a": [1, 0, 0, 1], "b": [0.5, 0.5], "c": [0.7]}
    lengths = {"a": [3, 2, 1, 3], "b": [2, 3], "c": [1]}
    return build_table(
        make_groups(
            **{
                name: [
                    make_trajectory(f"{name}{place}", name, [reward], lengths=[length])
                    for place, (reward, length) in enumerate(zip(rewards[name], lengths[name], strict=True))
                ]
                for name in rewards
            }
        )
    )


def step_table() -> StepTable:
    return build_table(
        make_groups(
            g=[
                make_trajectory("t1", "g", [0, 0, 1]),
                make_trajectory("t2", "g", [0, 0]),
                make_trajectory("t3", "g", [1]),
            ]
        )
    )


def flat_table(rewards: list[list[float]]) -> StepTable:
    return build_table(make_groups(g=[make_trajectory(f"t{i}", "g", r) for i, r in enumerate(rewards)]))


def test_opo_reproduces_the_reference() -> None:
    got = LengthWeightedCredit(singleton="raw")(golden_table())
    np.testing.assert_allclose(got, [0.333333, -0.666667, -0.666667, 0.333333, 0, 0, 0.7], atol=1e-6)
    # A return without a baseline is a bias, so that a group of one has no credit unless it is asked for.
    assert LengthWeightedCredit()(golden_table()).tolist() == [*got[:6].tolist(), 0.0]


def test_reinforce_plus_plus_reproduces_the_reference() -> None:
    got = Whitened(ReturnToGo())(golden_table())
    want = [0.999003, -1.584626, -1.584626, 0.999003, -0.292811, -0.292811, 0.223915]
    np.testing.assert_allclose(got, want, atol=2e-6)


def test_reinforce_plus_plus_baseline_reproduces_the_reference() -> None:
    rule = EpisodeCredit(scale="none", singleton="raw")
    want = [0.850316, -1.556239, -1.556239, 0.850316, -0.352961, -0.352961, 1.331627]
    np.testing.assert_allclose(Whitened(rule)(golden_table()), want, atol=2e-6)
    scaled = Whitened(rule, "scale")(golden_table())
    assert not scaled[4:6].any() and np.array_equal(np.sign(scaled), np.sign(rule(golden_table())))


@pytest.mark.parametrize(
    ("gamma", "trace", "whitened", "returns"),
    [
        (1.0, 1.0, [1.13399, 0.664753, 0.195515, -1.446815, -0.977577, 0.430134], [1, 1, 1, 0, 0, 1]),
        (
            0.99,
            0.95,
            [1.061817, 0.662565, 0.243293, -1.468899, -0.988411, 0.489634],
            [0.932273, 0.9702, 1, 0.00495, 0, 1],
        ),
    ],
)
def test_step_gae_reproduces_steppo(gamma: float, trace: float, whitened: list[float], returns: list[float]) -> None:
    table = replace(step_table(), value=np.array([0.2, 0.4, 0.6, 0.3, 0.1, 0.5]))
    np.testing.assert_allclose(StepGAE(gamma, trace)(table), whitened, atol=2e-6)
    assert table.value is not None
    np.testing.assert_allclose(generalised_advantages(table, gamma, trace) + table.value, returns, atol=2e-6)


def test_a_cut_episode_bootstraps_from_its_last_value() -> None:
    value = np.array([0.2, 0.4, 0.6, 0.3, 0.1, 0.5])
    cut = np.array([False, False, False, False, True, False])
    table = replace(step_table(), value=value, truncated=cut)
    np.testing.assert_allclose(generalised_advantages(table, 1.0, 1.0)[3:5], [0.1 - 0.3, 0.0], atol=1e-12)


def test_step_gae_without_a_critic_says_what_to_do() -> None:
    with pytest.raises(TrainingError, match="needs a critic"):
        StepGAE()(step_table())


def test_igpo_normalises_all_turns_of_a_group_and_sums_ahead() -> None:
    # Rewards .3, 1 | -.1, 0: mean .3, squares 0 + .49 + .16 + .09 = .74, deviation sqrt(.74 / 3) = .496655.
    got = TurnCredit(gamma=0.5)(flat_table([[0.3, 1.0], [-0.1, 0.0]]))
    unit = np.array([0.0, 0.7, -0.4, -0.3]) / (np.sqrt(0.74 / 3) + 1e-6)
    want = [unit[0] + 0.5 * unit[1], unit[1], unit[2] + 0.5 * unit[3], unit[3]]
    np.testing.assert_allclose(got, want, atol=1e-9)


def test_igpos_public_code_normalises_by_the_first_turn_and_the_paper_does_not() -> None:
    """Its published numbers: no turn reaches another, and all are measured by the mean and deviation of the first."""
    table = flat_table([[0.3, 1.0], [-0.1, 0.0]])
    first = table.reward[table.index == 0]
    published = (table.reward - first.mean()) / (first.std(ddof=1) + 1e-6)
    np.testing.assert_allclose(published, [0.707104, 3.181969, -0.707104, -0.353552], atol=2e-6)
    ours = TurnCredit(gamma=1.0)(table)
    assert ours[0] > 0.99 * ours[1] and np.abs(ours).max() < 2.0, "a turn is credited with those after it"


def test_maxrl_gpg_and_bnpo_by_hand() -> None:
    table = flat_table([[1.0], [0.0], [0.0], [0.0]])
    np.testing.assert_allclose(RelativeCredit()(table), [3, -1, -1, -1])
    two = build_table(
        make_groups(
            a=[make_trajectory("a0", "a", [1]), make_trajectory("a1", "a", [0])],
            b=[make_trajectory("b0", "b", [1]), make_trajectory("b1", "b", [1])],
        )
    )
    np.testing.assert_allclose(SignalScaledCredit()(two), [1, -1, 0, 0])
    # Means .5 and 1: m = .75, v = .125, strength .5, alpha = 1 + .375 / 3, beta = 1 + .125 / 3.
    from math import gamma

    density = 0.5 ** (1 / 8 + 1 / 24) * gamma(1 + 1 / 8 + 1 + 1 / 24) / (gamma(1 + 1 / 8) * gamma(1 + 1 / 24))
    np.testing.assert_allclose(BetaNormalisedCredit()(two), [0.5 / density, -0.5 / density, 0, 0], atol=1e-9)
    with pytest.raises(TrainingError, match="from 0 to 1"):
        BetaNormalisedCredit()(flat_table([[2.0], [0.0]]))


def test_terms_are_normalised_before_they_are_added() -> None:
    table = flat_table([[1.0], [0.0]])
    table = replace(table, scores={"small": np.array([0.0, 0.001])})
    got = TermCredit((("reward", 1.0), ("small", 1.0)), epsilon=0.0)(table)
    np.testing.assert_allclose(got, [0, 0], atol=1e-12)
    with pytest.raises(TrainingError, match="has a score 'other'"):
        TermCredit((("other", 1.0),))(table)


def test_a_token_discount_skips_what_the_environment_wrote() -> None:
    groups = make_groups(g=[make_trajectory("t", "g", [0.0, 1.0], lengths=[2, 2])])
    batch = build_batch(groups)
    np.testing.assert_allclose(token_returns(batch.table, batch.columns, 1.0), [1, 1, 1, 1])
    np.testing.assert_allclose(token_returns(batch.table, batch.columns, 0.5), [0.125, 0.25, 0.5, 1])


def tree_table() -> StepTable:
    """Two leaves below one first step (returns 1 and 0), and a third trajectory by itself (return 0)."""
    table = flat_table([[0.0, 1.0], [0.0, 0.0], [0.0]])
    return replace(table, step=np.array([0, 1, 0, 2, 3], np.int32))


def test_branch_credit_by_hand_and_along_a_trajectory() -> None:
    credit = BranchCredit()(tree_table())
    np.testing.assert_allclose(credit, [1 / 6, 1 / 2, 1 / 6, -1 / 2, -1 / 3])
    np.testing.assert_allclose(credit[:2].sum(), 1 - 1 / 3)


def test_hard_and_soft_attribution_have_one_gradient_under_token_sum() -> None:
    table, soft = tree_table(), EpisodeCredit(scale="none")
    hard = HardAttribution(soft)(table)
    totals = [np.bincount(table.step, weights=credit * table.length) for credit in (soft(table), hard)]
    np.testing.assert_allclose(totals[0], totals[1], atol=1e-12)
    assert hard[0] == hard[2] and soft(table)[0] != soft(table)[2]


numbers = st.floats(-5, 5, allow_nan=False, width=32)
shapes = st.lists(st.lists(st.lists(numbers, min_size=1, max_size=4), min_size=1, max_size=5), min_size=1, max_size=4)
RULES: list[Rule] = [
    LengthWeightedCredit(),
    RelativeCredit(),
    SignalScaledCredit(),
    Whitened(EpisodeCredit(scale="none")),
    ReturnToGo(0.9),
    TurnCredit(0.9),
    TermCredit((("reward", 1.0),)),
    StepGAE(0.9, 0.9),
    HardAttribution(StepReturnCredit()),
    BranchCredit(),
]


def table_of(groups: list[list[list[float]]]) -> StepTable:
    named = {
        f"g{i}": [make_trajectory(f"g{i}t{j}", f"g{i}", steps) for j, steps in enumerate(members)]
        for i, members in enumerate(groups)
    }
    table = build_table(make_groups(**named))
    return replace(table, value=np.sin(np.arange(len(table))))


def shuffled(table: StepTable, order: Places) -> StepTable:
    columns = {
        name: getattr(table, name)[order] for name in StepTable.__dataclass_fields__ if name not in ("tasks", "scores")
    }
    return StepTable(**columns, tasks=table.tasks, scores={k: v[order] for k, v in table.scores.items()})


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@given(groups=shapes, seed=st.integers(0, 1000))
def test_rules_are_finite_and_follow_a_permutation(rule: Rule, groups: list[list[list[float]]], seed: int) -> None:
    table = table_of(groups)
    order = np.random.default_rng(seed).permutation(len(table))
    credit = rule(table)
    assert np.isfinite(credit).all()
    np.testing.assert_allclose(rule(shuffled(table, order)), credit[order], atol=1e-6)


@given(value=st.floats(0, 1, width=32), members=st.integers(2, 15))
def test_equal_rewards_give_exactly_zero(value: float, members: int) -> None:
    table = flat_table([[value]] * members)
    rules: tuple[Rule, ...] = (
        LengthWeightedCredit(),
        RelativeCredit(),
        SignalScaledCredit(),
        BetaNormalisedCredit(),
        TurnCredit(),
        TermCredit((("reward", 1.0),)),
        Whitened(EpisodeCredit(scale="none")),
    )
    for rule in rules:
        assert not rule(table).astype(np.float32).any()


@given(groups=shapes, decay=st.floats(0, 1))
def test_the_scan_equals_the_recursion(groups: list[list[list[float]]], decay: float) -> None:
    table = table_of(groups)
    want = np.zeros(len(table))
    for row in reversed(range(len(table))):
        last = row + 1 == len(table) or table.trajectory[row + 1] != table.trajectory[row]
        want[row] = table.reward[row] + (0.0 if last else decay * want[row + 1])
    np.testing.assert_allclose(step_returns(table, decay), want, atol=1e-9)


@given(pairs=st.lists(st.tuples(st.integers(-3, 3), st.sampled_from([0, 7, 10**12])), min_size=1))
def test_dense_ids_name_each_combination_once(pairs: list[tuple[int, int]]) -> None:
    ids = dense_ids(*(np.array(column) for column in zip(*pairs, strict=True)))
    assert set(ids.tolist()) == set(range(len(set(pairs))))
    assert len({(pair, int(i)) for pair, i in zip(pairs, ids, strict=True)}) == len(set(pairs))


def test_whitening_has_mean_zero_and_deviation_one_over_tokens() -> None:
    values, weight = np.array([1.0, 2.0, 4.0]), np.array([3.0, 1.0, 2.0])
    repeated = np.repeat(whiten(values, weight), weight.astype(int))
    np.testing.assert_allclose([repeated.mean(), repeated.std(ddof=1)], [0, 1], atol=1e-6)


def test_a_scan_over_one_long_trajectory_is_exact() -> None:
    ones = np.ones(1000)
    got = suffix_sums(ones, 1.0, np.zeros(1000, np.int32), np.arange(1000, dtype=np.int32))
    np.testing.assert_array_equal(got, np.arange(1000, 0, -1))


def group_of(*rewards: float) -> Group:
    return Group("g", Task("g", "test"), tuple(make_trajectory(f"t{i}", "g", [r]) for i, r in enumerate(rewards)))


def names(kept: object) -> list[list[str]]:
    assert isinstance(kept, list)
    return [[t.id for t in group.trajectories] for group in kept]


def cut(trajectory: Trajectory) -> Trajectory:
    return replace(trajectory, status=Status.TRUNCATED)


def test_curations_drop_what_they_say() -> None:
    assert names(DropEqual()([group_of(1, 1), group_of(1, 0)])) == [["t0", "t1"]]
    assert names(MaximumVariance(3)([group_of(0, 0.5, 1, 1, 0.4)])) in ([["t0", "t2", "t3"]], [["t0", "t2", "t4"]])
    assert names(Balance()([group_of(1, 0, 0, 0)])) == [["t0", "t1"]]
    assert names(Balance()([group_of(0, 0)])) == [["t0", "t1"]]
    whole = group_of(1, 0, 0)
    some = replace(whole, trajectories=(cut(whole.trajectories[0]), *whole.trajectories[1:]))
    assert names(DropTruncated()([some])) == [["t1", "t2"]]
    assert names(DropTruncated()([replace(some, trajectories=some.trajectories[:2])])) == []


def test_reinforce_plus_plus_gives_the_references_numbers_per_token() -> None:
    table_groups = make_groups(
        a=[
            make_trajectory(f"a{i}", "a", [r], lengths=[n]) for i, (r, n) in enumerate(((1, 3), (0, 2), (0, 1), (1, 3)))
        ],
        b=[make_trajectory(f"b{i}", "b", [0.5], lengths=[n]) for i, n in enumerate((2, 3))],
        c=[make_trajectory("c", "c", [0.7], lengths=[1])],
    )
    batch = groups.reinforce_plus_plus().batch(table_groups)
    first = np.searchsorted(batch.columns.row, np.arange(7))
    want = [0.999003, -1.584626, -1.584626, 0.999003, -0.292811, -0.292811, 0.223915]
    np.testing.assert_allclose(batch.advantage[first], want, atol=2e-6)


PRESETS: list[Method] = [
    groups.dr_grpo(),
    groups.lite_ppo(),
    groups.reinforce_plus_plus(gamma=0.9),
    groups.reinforce_plus_plus_baseline(whitening="scale"),
    groups.opo(),
    groups.maxrl(),
    groups.gpg(),
    groups.bnpo(),
    steps.igpo(),
    steps.eapo(),
    steps.normalised_terms(weights={"reward": 1.0}),
    forks.arpo(),
    forks.branch(),
    forks.r3l(),
    forks.fission(),
    entropy.d3s(size=2),
]


@pytest.mark.parametrize("method", PRESETS, ids=lambda method: method.name)
def test_every_preset_prefers_what_won(method: Method) -> None:
    members = [make_trajectory(f"t{i}", "g", [0.0, float(i == 0)]) for i in range(3)]
    batch = method.batch(make_groups(g=members))
    won = batch.table.trajectory[batch.columns.row] == 0
    assert np.isfinite(batch.advantage).all()
    assert batch.advantage[won].mean() > 0 and batch.advantage[won].min() > batch.advantage[~won].max() - 1e-9
