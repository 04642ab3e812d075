"""Anchors by history and by likeness, the presets on them, and what holds for every rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builders import make_groups, make_trajectory
from hypothesis import given
from hypothesis import strategies as st

from agentrl.batch import StepTable, build_table
from agentrl.credit.anchors import HistoryAnchors, HistoryCredit, SimilarAnchors, UniqueAnchors, history_codes
from agentrl.credit.rules import AnchorCredit
from agentrl.errors import ConfigError, TrainingError
from agentrl.methods import curated, groups, steps
from agentrl.types import Group, Message, Observation, Trajectory


def walks(*states: str) -> list[Group]:
    """One group; a walk of letters is a trajectory of those states, won where its last letter is a capital."""
    return make_groups(
        g=[
            make_trajectory(f"t{i}", "g", [*[0.0] * (len(walk) - 1), float(walk[-1].isupper())], states=list(walk))
            for i, walk in enumerate(states)
        ]
    )


def saying(trajectory: Trajectory, *texts: str) -> Trajectory:
    shown = [Observation((Message("user", text),)) for text in texts]
    members = zip(trajectory.steps, shown, strict=True)
    return replace(trajectory, steps=tuple(replace(step, observation=o) for step, o in members))


def partition(codes: np.ndarray[tuple[int], np.dtype[np.int32]]) -> list[int]:
    seen: dict[int, int] = {}
    return [seen.setdefault(int(code), len(seen)) for code in codes]


def test_histories_split_places_by_their_last_states() -> None:
    table = build_table(walks("abc", "xbc", "abc", "bc"))
    assert partition(history_codes(table, 1)) == [0, 1, 2, 3, 1, 2, 0, 1, 2, 1, 2]
    assert partition(history_codes(table, 2)) == [0, 1, 2, 3, 4, 2, 0, 1, 2, 5, 2]
    assert partition(history_codes(table, None)) == [0, 1, 2, 3, 4, 5, 0, 1, 2, 6, 7]
    np.testing.assert_array_equal(
        partition(HistoryAnchors()(walks("abc", "xbc", "abc", "bc"), table).anchor),
        partition(history_codes(table, 9)),
    )


@given(
    states=st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=5), min_size=1, max_size=5),
    depth=st.integers(1, 6),
)
def test_history_codes_are_those_of_the_written_out_histories(states: list[list[str]], depth: int) -> None:
    table = build_table(walks(*("".join(walk) for walk in states)))
    written: dict[tuple[str, ...], int] = {}
    want = []
    for walk in states:
        for place in range(len(walk)):
            history = ("start", *walk[: place + 1]) if place + 1 < depth else tuple(walk[place + 1 - depth : place + 1])
            want.append(written.setdefault(history, len(written)))
    assert partition(history_codes(table, depth)) == want


def test_a_step_without_a_state_key_has_no_history_anchor() -> None:
    members = [make_trajectory("t", "g", [0, 1], states=["a", None])]
    np.testing.assert_array_equal(history_codes(build_table(make_groups(g=members)), 2) >= 0, [True, False])


def test_unique_anchors_leave_gigpo_its_episode_term_alone() -> None:
    found = walks("abC", "abc", "aC")
    table = build_table(found)
    assert AnchorCredit()(table).any()
    assert not AnchorCredit()(UniqueAnchors()(found, table)).any()
    shared = AnchorCredit()(HistoryAnchors()(found, table)) != 0
    np.testing.assert_array_equal(np.flatnonzero(shared), [0, 1, 3, 4, 6])


def test_hgpo_by_hand() -> None:
    # Discount 1, so every step returns its outcome. State b: returns 1, 0, 0. After a: 1 and 0; after x: 0 alone.
    table = build_table(walks("abC", "abd", "xbd"))
    got = HistoryCredit(history=1, gamma=1.0, epsilon=0.0)(table)
    first = np.array([2 / 3, -1 / 3, -1 / 3]) / np.sqrt(2 / 9)
    want = [(first[0] + 2 * 1) / 3, (first[1] + 2 * -1) / 3, first[2]]
    np.testing.assert_allclose(got[[1, 4, 7]], want, atol=1e-12)
    np.testing.assert_allclose(got[[0, 3, 6]], [1, -1, 0], atol=1e-12)
    np.testing.assert_array_equal(got[[2, 5, 8]], [0, 0, 0])


def test_hgpo_of_one_depth_is_the_anchor_term_with_a_biased_deviation() -> None:
    table = build_table(walks("abC", "abd", "abC", "xbd"))
    biased = HistoryCredit(history=0, epsilon=0.0)(table)
    count = np.array([np.count_nonzero(table.anchor == code) for code in table.anchor])
    np.testing.assert_allclose(AnchorCredit(epsilon=1e-12)(table), biased * np.sqrt((count - 1) / count), atol=1e-12)


def test_alike_observations_share_a_place_and_the_first_fit_wins() -> None:
    base = "the door is closed and the key lies in the north"
    found = make_groups(
        a=[
            saying(make_trajectory("a0", "a", [0, 1]), base, "won"),
            saying(make_trajectory("a1", "a", [0, 0, 0]), base + ".", "quite another text", ""),
        ],
        b=[saying(make_trajectory("b0", "b", [0]), base)],
    )
    table = SimilarAnchors(0.95)(found, build_table(found))
    np.testing.assert_array_equal(table.anchor, [0, 1, 0, 2, -1, 3])
    apart = SimilarAnchors(0.999)(found, table)
    np.testing.assert_array_equal(apart.anchor, [0, 1, 2, 3, -1, 4])


def test_likeness_is_measured_against_the_first_text_of_a_place() -> None:
    # 1 and 2 differ by one letter of 20, and so do 2 and 3; 1 and 3 differ by two.
    texts = ["abcdefghijklmnopqrst", "Abcdefghijklmnopqrst", "ABcdefghijklmnopqrst"]
    found = make_groups(g=[saying(make_trajectory("t", "g", [0, 0, 0]), *texts)])
    np.testing.assert_array_equal(SimilarAnchors(0.95)(found, build_table(found)).anchor, [0, 0, 1])


def test_long_texts_are_compared_by_all_their_letters() -> None:
    text = "abcd " * 200
    found = make_groups(g=[saying(make_trajectory("t", "g", [0, 0]), text, text + "e")])
    np.testing.assert_array_equal(SimilarAnchors()(found, build_table(found)).anchor, [0, 0])


def test_what_cannot_be_grouped_is_refused_with_what_to_do() -> None:
    bare = make_groups(g=[make_trajectory("t", "g", [1])])
    with pytest.raises(TrainingError, match="state_key"):
        HistoryAnchors(2)(bare, build_table(bare))
    with pytest.raises(TrainingError, match="state keys"):
        steps.hgpo().batch(bare)
    with pytest.raises(ConfigError, match="at least 1"):
        history_codes(build_table(bare), 0)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        SimilarAnchors(1.0)


def advantages(table: StepTable, advantage: np.ndarray[tuple[int], np.dtype[np.float32]]) -> list[float]:
    """Of the first token of each row; every step of these tests has two."""
    assert len(advantage) == 2 * len(table)
    return [float(value) for value in advantage[::2]]


def test_loop_and_dapo_give_the_credit_they_name() -> None:
    mixed = [make_trajectory(f"m{i}", "m", [r]) for i, r in enumerate((1.0, 0.0, 0.0))]
    equal = [make_trajectory(f"e{i}", "e", [1.0]) for i in range(3)]
    loop = groups.loop().batch(make_groups(m=mixed, e=equal))
    np.testing.assert_allclose(advantages(loop.table, loop.advantage), [1, -0.5, -0.5, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(loop.scale, 1 / 12, rtol=1e-6)
    dapo = curated.dapo().batch(make_groups(m=mixed, e=equal))
    np.testing.assert_allclose(advantages(dapo.table, dapo.advantage), np.array([2, -1, -1]) / np.sqrt(3), atol=1e-5)
    np.testing.assert_allclose(dapo.scale, 1 / 6, rtol=1e-6)


def test_dart_weighs_an_episode_by_its_steps() -> None:
    members = [make_trajectory("won", "g", [0, 0, 1]), make_trajectory("lost", "g", [0])]
    got = steps.dart().batch(make_groups(g=members))
    np.testing.assert_allclose(advantages(got.table, got.advantage), [0.5, 0.5, 0.5, -1.5], atol=1e-5)


def test_gigpo_similar_equals_gigpo_where_texts_are_states() -> None:
    members = [
        make_trajectory(f"t{i}", "g", r, states=s)
        for i, (r, s) in enumerate(((([0, 1]), ["x" * 9, "y" * 9]), ([0, 0], ["x" * 9, "z" * 9])))
    ]
    spoken = [saying(t, *(str(step.anchor) for step in t.steps)) for t in members]
    exact = steps.gigpo().batch(make_groups(g=members))
    alike = steps.gigpo_similar().batch(make_groups(g=spoken))
    np.testing.assert_allclose(alike.advantage, exact.advantage, atol=1e-7)
