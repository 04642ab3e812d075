"""Success replay: which groups get one, what is kept, and that the memory survives a kill."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from builders import make_groups, make_trajectory
from fakes_rollout import same

from agentrl.batch import build_table
from agentrl.errors import ConfigError
from agentrl.methods.replay import ReplayOnAllFail, arpo_replay
from agentrl.types import Group, Source, Status, Trajectory


def group(number: int, *returns: float, task: str = "t") -> Group:
    members = [
        make_trajectory(f"{number}-{place}", f"g{number}", [0.0, float(value)]) for place, value in enumerate(returns)
    ]
    found = make_groups(**{f"g{number}": members})[0]
    return replace(found, task=replace(found.task, id=task))


def sources(groups: object) -> list[list[Source]]:
    return [[t.source for t in group.trajectories] for group in groups]  # type: ignore[attr-defined]


def test_only_a_group_that_fails_wholly_gets_an_earlier_success_in_its_first_place() -> None:
    part = ReplayOnAllFail()
    won, lost = group(1, 1, 0, 1), group(2, 0, 0, 0)
    assert part([won])[0] is won
    (helped,) = part([lost])
    assert sources([helped]) == [[Source.REPLAY, Source.POLICY, Source.POLICY]]
    replayed = helped.trajectories[0]
    assert replayed.group == "g2" and replayed.id in ("1-0", "1-2") and replayed.reward == 1
    assert helped.trajectories[1:] == lost.trajectories[1:]
    for fine in (group(3, 0, 1), group(4, 0.3, 0.3), group(5, 0, 0.2), group(6, 0, 0, task="u"), group(7, 0)):
        assert part([fine])[0] is fine


def test_a_group_is_read_before_its_batch_is_remembered_and_replays_are_not_kept_again() -> None:
    part = ReplayOnAllFail()
    assert sources(part([group(1, 0, 0), group(2, 1, 1)])) == [[Source.POLICY] * 2] * 2
    helped = part([group(3, 0, 0)])
    part(helped)
    assert len(part.state()["kept"]["t"]) == 2


def test_the_oldest_successes_and_tasks_are_forgotten() -> None:
    part = ReplayOnAllFail(size=2, tasks=2)
    for number, task in enumerate("aabcb"):
        part([group(number, 1, 0, task=task), group(10 + number, 1, 0, task=task)])
    again = ReplayOnAllFail(size=2, tasks=2)
    again.restore(json.loads(json.dumps(part.state())))
    assert list(again.state()["kept"]) == ["c", "b"]
    assert sources(again([group(90, 0, 0, task="a")])) == [[Source.POLICY] * 2]
    names = {again([group(n, 0, 0, task="b")])[0].trajectories[0].id for n in range(20, 40)}
    assert names == {"4-0", "14-0"}


def test_the_memory_goes_on_where_it_was_saved() -> None:
    one, two = arpo_replay(), arpo_replay()
    one.columns([group(1, 1, 0), group(2, 1, 1)])
    two.restore(json.loads(json.dumps(one.state())))
    for number in (3, 4, 5):
        first, second = (method.curations[0]([group(number, 0, 0)])[0].trajectories[0] for method in (one, two))
        assert same(first, second) and isinstance(first, Trajectory) and first.status is Status.OK
    table = build_table(one.curations[0]([group(6, 0, 0, 0)]))
    credit = one.credit(table)
    # One success against two failures, as any group.
    np.testing.assert_allclose(credit[[0, 2, 4]], [2 / np.sqrt(3), -1 / np.sqrt(3), -1 / np.sqrt(3)], rtol=1e-4)


def test_a_memory_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="holds 0 successes"):
        ReplayOnAllFail(size=0)
