"""Groups as columns: nothing is lost, nothing is counted twice, nothing that was not sampled gets in."""

from dataclasses import replace

import numpy as np
import pytest
from builders import make_groups, make_step, make_trajectory
from forests import random_groups
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.batch import build_batch, build_table, with_credit
from agentrl.errors import InvalidDataError
from agentrl.types import Group, Status, Step, Task, Trajectory

forests = st.builds(
    random_groups, st.integers(0, 10**6), groups=st.integers(1, 4), members=st.integers(1, 6), steps=st.integers(1, 6)
)


def rows_of(groups: list[Group]) -> list[tuple[Trajectory, Step]]:
    return [(t, step) for group in groups for t in group.trajectories for step in t.steps]


@given(forests)
@settings(max_examples=60, deadline=None)
def test_every_step_of_every_trajectory_is_one_row(groups):
    table, rows = build_table(groups), rows_of(groups)
    assert len(table) == len(rows)
    assert table.length.tolist() == [len(step.tokens) for _, step in rows]
    assert table.reward.tolist() == [step.reward for _, step in rows]
    assert table.trajectories == sum(len(group.trajectories) for group in groups)
    assert table.groups == len(groups)
    sums = np.bincount(table.trajectory, table.reward, minlength=table.trajectories)
    assert sums.tolist() == pytest.approx([t.reward for group in groups for t in group.trajectories])
    ids = [step.id for _, step in rows]
    for one in range(0, len(rows), 3):
        same = [ids[one] == other for other in ids]
        assert (table.step == table.step[one]).tolist() == same


@given(forests)
@settings(max_examples=60, deadline=None)
def test_every_sampled_token_has_one_column_and_stands_once_in_the_contexts(groups):
    """Also where branches share a step, and where a context was rewritten."""
    batch = build_batch(groups)
    assert len(batch.columns) == sum(len(step.tokens) for _, step in rows_of(groups))
    placed = np.concatenate([context.column for context in batch.contexts])
    assert sorted(placed[placed >= 0].tolist()) == list(range(len(batch.columns)))
    for context in batch.contexts:
        trained = context.column >= 0
        assert np.array_equal(context.tokens[trained], batch.columns.token[context.column[trained]])
    expected = [step for _, step in rows_of(groups)]
    assert np.array_equal(batch.columns.token, np.concatenate([step.tokens for step in expected]))
    assert np.array_equal(batch.columns.behavior_logprobs, np.concatenate([step.logprobs for step in expected]))
    assert np.array_equal(batch.columns.version, np.concatenate([step.versions for step in expected]))


@given(forests)
@settings(max_examples=60, deadline=None)
def test_contexts_are_what_the_engine_saw_and_prompts_are_no_columns(groups):
    batch = build_batch(groups)
    contexts = iter(batch.contexts)
    for group in groups:
        for trajectory in group.trajectories:
            extended = {step.context for step in trajectory.steps}
            for leaf in (step for step in trajectory.steps if step.id not in extended):
                context = next(contexts)
                assert np.array_equal(context.tokens, trajectory.tokens_through(leaf))
                at = 0
                for step in trajectory.context_of(leaf):
                    assert (context.column[at : at + len(step.prompt)] == -1).all()
                    at += len(step.prompt) + len(step.tokens)
    assert next(contexts, None) is None


@given(forests, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_groups_and_members_changes_the_order_of_rows_and_nothing_else(groups, dice):
    shuffled = [replace(g, trajectories=tuple(dice.sample(g.trajectories, len(g.trajectories)))) for g in groups]
    dice.shuffle(shuffled)

    def content(chosen):
        batch = build_batch(chosen)
        return sorted((t.id, s.id, tuple(s.tokens)) for t, s in rows_of(chosen)), sorted(batch.columns.token.tolist())

    assert content(shuffled) == content(groups)


def test_a_rewritten_context_trains_each_step_in_its_own_path():
    first = make_step("t", 0, prompt=[1, 2], tokens=[10, 11])
    second = replace(make_step("t", 1, prompt=[5], tokens=[12], last=True), context=None)
    batch = build_batch(
        [Group("g", Task("g", "test"), (Trajectory("t", Task("g", "test"), "g", (first, second), Status.OK),))]
    )
    assert [context.tokens.tolist() for context in batch.contexts] == [[1, 2, 10, 11], [5, 12]]
    assert [context.column.tolist() for context in batch.contexts] == [[-1, -1, 0, 1], [-1, 2]]


def test_two_steps_that_extend_one_are_trained_in_two_paths_and_the_stem_in_the_first():
    stem = make_step("t", 0, prompt=[1], tokens=[10])
    left = make_step("t", 1, prompt=[2], tokens=[11])
    right = replace(make_step("t", 2, prompt=[3], tokens=[12], last=True), context=stem.id)
    trajectory = Trajectory("t", Task("g", "test"), "g", (stem, left, right), Status.OK)
    batch = build_batch([Group("g", trajectory.task, (trajectory,))])
    assert [context.tokens.tolist() for context in batch.contexts] == [[1, 10, 2, 11], [1, 10, 3, 12]]
    assert [context.column.tolist() for context in batch.contexts] == [[-1, 0, -1, 1], [-1, -1, -1, 2]]


def test_equal_state_keys_are_one_anchor_in_any_group_and_no_key_is_none():
    groups = make_groups(
        a=[make_trajectory("a0", "a", [0, 1], states=["start", "door"])],
        b=[make_trajectory("b0", "b", [0, 0], states=["door", None])],
    )
    assert build_table(groups).anchor.tolist() == [0, 1, 1, -1]


def test_a_step_that_sampled_nothing_keeps_its_row_and_its_reward():
    groups = make_groups(a=[make_trajectory("a0", "a", [1.0, 2.0], lengths=[0, 3])])
    batch = build_batch(groups)
    assert batch.table.reward.tolist() == [1.0, 2.0]
    assert batch.columns.row.tolist() == [1, 1, 1]


def test_credit_is_spread_over_the_tokens_of_a_row():
    batch = build_batch(make_groups(a=[make_trajectory("a0", "a", [1.0, 2.0], lengths=[2, 3])]))
    ones = np.ones(5, np.float32)
    credited = with_credit(batch, np.array([0.5, -1.0]), ones, ones)
    assert credited.advantage.tolist() == [0.5, 0.5, -1.0, -1.0, -1.0]
    assert credited.has_signal and not batch.has_signal
    assert not with_credit(batch, np.array([0.5, -1.0]), 0 * ones, ones).has_signal


def test_a_batch_of_nothing_has_no_columns_and_no_signal():
    batch = build_batch([])
    assert (len(batch.table), len(batch.columns), batch.contexts, batch.has_signal) == (0, 0, (), False)
    assert (batch.table.trajectories, batch.table.groups) == (0, 0)


def test_credit_that_is_not_finite_or_not_aligned_is_refused():
    batch = build_batch(make_groups(a=[make_trajectory("a0", "a", [1.0], lengths=[2])]))
    ones = np.ones(2, np.float32)
    with pytest.raises(InvalidDataError, match="not finite"):
        with_credit(batch, np.array([np.nan]), ones, ones)
    with pytest.raises(InvalidDataError, match=r"lengths \[2, 3\]"):
        with_credit(batch, np.array([1.0]), np.ones(3, np.float32), ones)
