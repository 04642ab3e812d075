"""Credit of forks: soft and hard attribution on real forks, own groups, and what is left out of training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builders import make_groups, make_step, make_trajectory
from fakes_rollout import Engine, Renderer, World

from agentrl.batch import build_batch, build_table
from agentrl.credit.forks import OneGroupAPlace, OwnTokens, PositivesAmplified, UnsharedTokens
from agentrl.credit.rules import EpisodeCredit
from agentrl.credit.turns import BranchCredit, HardAttribution
from agentrl.errors import ConfigError
from agentrl.plugins import load_host
from agentrl.protocols import Demands
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.tokens import TokenPlayer
from agentrl.training.tree import build_tree
from agentrl.types import Group, Task, Trajectory


def forked(parent: Trajectory, name: str, at: int, rewards: list[float]) -> Trajectory:
    """A fork of `parent` before step `at`, with new steps that pay `rewards`."""
    own = tuple(
        replace(make_step(name, at + i, reward=reward, tokens=(7 + i, 8)), previous=None, context=None)
        for i, reward in enumerate(rewards)
    )
    steps = (*parent.steps[:at], *own)
    return replace(parent, id=name, steps=steps, forked_from=parent.steps[at - 1].id)


@pytest.fixture
def groups() -> list[Group]:
    """Returns 0, 1, 1, 0: a root, its fork before step 2, a fork of the fork before 3, and a root of its own."""
    root = make_trajectory("a", "g", [0, 0, 0, 0])
    fork = forked(root, "b", 2, [0, 1])
    below = forked(fork, "c", 3, [1])
    other = make_trajectory("d", "g", [0, 0])
    return make_groups(g=[root, fork, below, other])


def test_the_table_knows_what_was_inherited(groups: list[Group]) -> None:
    table = build_table(groups)
    assert (
        table.inherited.tolist() == [False] * 4 + [True, True, False, False] + [True, True, True, False] + [False] * 2
    )
    assert table.step[:2].tolist() == table.step[4:6].tolist() == table.step[8:10].tolist()
    assert not table.guided.any()


def test_soft_and_hard_attribution_agree_in_the_sum_over_the_branches_of_a_step(groups: list[Group]) -> None:
    table = build_table(groups)
    soft = EpisodeCredit(scale="none")
    one, two = soft(table), HardAttribution(soft)(table)
    np.testing.assert_allclose(np.bincount(table.step, weights=one), np.bincount(table.step, weights=two))
    # a, b and c share step 0: returns 0, 1, 1 against a mean of one half.
    np.testing.assert_allclose(two[[0, 4, 8]], 1 / 6)
    np.testing.assert_allclose(one[[0, 4, 8]], [-0.5, 0.5, 0.5])


def test_branches_against_their_fork_see_the_recorded_structure(groups: list[Group]) -> None:
    credit = BranchCredit()(build_table(groups))
    # a, b and c pass through 0 and 1 (mean 2/3 against 1/2); a alone ends at 0, b and c at 1.
    np.testing.assert_allclose(credit[:4], [1 / 6, 1 / 6, -2 / 3, -2 / 3])
    np.testing.assert_allclose(credit[6:8], [1 / 3, 0])


def test_forks_of_one_place_are_a_group_of_their_own(groups: list[Group]) -> None:
    table = build_table(groups)
    shaped = OneGroupAPlace()(groups, table)
    assert shaped.group.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [0] * 2
    assert shaped.tasks == ("g", "g", "g") and table.groups == 1


def test_what_a_fork_begins_with_is_left_out_once_or_everywhere(groups: list[Group]) -> None:
    batch = build_batch(groups)
    own, unshared = OwnTokens()(batch), UnsharedTokens()(batch)
    assert own[batch.columns.row == 0].tolist() == [1, 1] and own[batch.columns.row == 4].tolist() == [0, 0]
    assert unshared[batch.columns.row == 0].tolist() == [0, 0] == unshared[batch.columns.row == 4].tolist()
    # b's step 2 is shared with c, its step 3 with nobody.
    assert unshared[batch.columns.row == 6].tolist() == [0, 0] and own[batch.columns.row == 6].tolist() == [1, 1]
    assert unshared[batch.columns.row == 7].tolist() == [1, 1]


def test_positive_advantages_are_amplified(groups: list[Group]) -> None:
    table = build_table(groups)
    plain, more = EpisodeCredit(scale="none")(table), PositivesAmplified(EpisodeCredit(scale="none"))(table)
    np.testing.assert_allclose(more, np.where(plain > 0, 3 * plain, plain))


async def test_the_trie_computes_what_played_forks_share_once() -> None:
    task = Task("t", "counter", data={"length": 5})
    async with RolloutEngine(World(), TokenPlayer(Engine(), Renderer())) as play:
        group = play.group("g", demands=Demands(forks=True))
        parent = await group.episode(task, 0)
        forks = [await group.fork(parent, 3, member) for member in (1, 2, 3)]
    batch = build_batch([Group("g", task, (parent, *forks))])
    tree = build_tree(batch.contexts)
    shared = len(parent.tokens_through(parent.steps[3])) - len(parent.steps[3].tokens)
    alone = sum(len(t.tokens_through(t.steps[-1])) - shared for t in (parent, *forks))
    # Equal samples behind the fork share positions too.
    assert tree.row_tokens - 3 * shared - alone == shared and len(tree) <= shared + alone
    assert len(tree.column) == len(batch.columns) == 4 * 5 * 2


@pytest.mark.parametrize("name", ["arpo", "branch", "r3l", "fission"])
def test_a_method_for_forks_is_refused_where_the_strategy_forks_none(name: str) -> None:
    method = load_host().create("methods", name)
    method.check(4, forks=True)
    with pytest.raises(ConfigError, match=f"the method '{name}' gives credit to episodes that were forked"):
        method.check(4, forks=False)


def test_hard_attribution_is_an_option_of_arpo(groups: list[Group]) -> None:
    host = load_host()
    table = build_table(groups)
    hard = host.create("methods", "arpo", {"attribution": "hard", "scale": "none"})
    np.testing.assert_allclose(hard.credit(table), HardAttribution(EpisodeCredit(scale="none"))(table))
    with pytest.raises(ConfigError, match="attribution"):
        host.create("methods", "arpo", {"attribution": "firm"})
