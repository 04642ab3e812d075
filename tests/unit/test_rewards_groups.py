"""Rewards that compare the members of a group: asked once when it is complete, kept, and not asked again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from builders import make_groups, make_trajectory
from fakes_rollout import Diary, Engine, Renderer, SetSampler, World, same, trajectory

from agentrl.errors import InfrastructureFault, TrainingError
from agentrl.rewards.branches import BranchValue
from agentrl.rollout.accounting import BatchShape, IssuedGroup
from agentrl.rollout.collector import Collector
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.limits import Supervision
from agentrl.rollout.rewarding import Judges, JudgesFailed, RewardTerm
from agentrl.rollout.strategies.independent import Independent
from agentrl.rollout.tokens import TokenPlayer
from agentrl.store.ledger import Ledger, UnfinishedGroup
from agentrl.types import Group, Settlement, Task, Trajectory

QUICK = Supervision(backoff=0.001, attempts=2)
SHAPE = BatchShape(groups=2, group_size=3)


class Ranked:
    """Every step of a trajectory gets its place by return, best last; counts how often it was asked."""

    def __init__(self, *, down: bool = False) -> None:
        self.asked: list[str] = []
        self.down = down

    async def score_group(self, group: Group) -> Mapping[str, float]:
        self.asked.append(group.id)
        if self.down:
            raise InfrastructureFault("no answer at port 80")
        order = sorted(group.trajectories, key=lambda t: (t.reward, t.id))
        return {step.id: float(place) for place, t in enumerate(order) for step in t.steps}


class Once:
    """What a ledger gives back of one group."""

    def __init__(self, group: IssuedGroup) -> None:
        self.update, self.ordinal, self.groups = 0, 1, [group]


async def collected(
    model: object, ledger: Diary, resumed: Once | None = None, keep: object = None
) -> tuple[list[Group], Collector]:
    """One batch, with `model` at weight 0.5."""
    sampler = SetSampler()
    terms = [RewardTerm("ranked", model, 0.5)]  # type: ignore[arg-type]
    async with RolloutEngine(World(), TokenPlayer(Engine(), Renderer()), supervision=QUICK, rewards=terms) as play:
        collector = Collector(play, Independent(), sampler, ledger, SHAPE, keep=keep or (lambda group: True))
        if resumed is not None:
            sampler.given = 1
            collector.resume(resumed)  # type: ignore[arg-type]
        async with collector:
            return await collector.next_batch(0), collector


def plain(group: Group) -> list[list[float]]:
    return [[step.scores["environment"] for step in t.steps] for t in group.trajectories]


async def test_a_complete_group_is_scored_once_and_kept_before_it_is_used() -> None:
    model, ledger = Ranked(), Diary()
    kept: list[float] = []
    groups, _ = await collected(model, ledger, keep=lambda group: kept.append(group.trajectories[0].reward) or True)
    assert model.asked == [group.id for group in groups] == list(ledger.settled)
    for group in groups:
        places = ledger.settled[group.id].scores["ranked"]
        assert sorted({step.scores["ranked"] for step in group.steps()}) == [0.0, 1.0, 2.0]
        for step, own in zip(group.steps(), (r for rewards in plain(group) for r in rewards), strict=True):
            assert step.scores["ranked"] == places[step.id]
            assert step.reward == own + 0.5 * places[step.id]
    assert kept == [group.trajectories[0].reward for group in groups], "a filter sees the whole reward"


async def test_a_settled_group_is_taken_as_it_was_settled_after_a_restart() -> None:
    first, ledger = Ranked(), Diary()
    groups, _ = await collected(first, ledger)
    bare = [replace(t, steps=tuple(unscored(step) for step in t.steps)) for t in groups[0].trajectories]
    known = UnfinishedGroup("g000000", 0, groups[0].task, 3, dict(enumerate(bare)), ledger.settled["g000000"])
    again, later = Ranked(), Diary()
    later.live["g000000"] = 0
    later.finish(*bare)
    resumed, _ = await collected(again, later, Once(known))
    assert [[s.reward for s in t.steps] for t in resumed[0].trajectories] == [
        [s.reward for s in t.steps] for t in groups[0].trajectories
    ]
    assert again.asked == ["g000001"] and list(later.settled) == ["g000001"]


def unscored(step):  # type: ignore[no-untyped-def]
    """As it was recorded: before the group was complete."""
    own = step.scores["environment"]
    return replace(step, reward=own, scores={"environment": own})


async def test_what_was_said_of_other_members_does_not_count() -> None:
    group = make_groups(g=[make_trajectory("a", "g", [0.0, 1.0]), make_trajectory("b", "g", [0.0])])[0]
    model = Ranked()
    judges = Judges([RewardTerm("ranked", model)], 5.0, QUICK)
    settled, said = await judges.settle(group, Settlement(("a",), {"ranked": {}}))
    assert model.asked == ["g"] and said == Settlement(("a", "b"), said.scores if said else {})
    assert [[s.scores["ranked"] for s in t.steps] for t in settled.trajectories] == [[1.0, 1.0], [0.0]]


async def test_a_group_that_nobody_compares_is_left_as_it_is() -> None:
    group = make_groups(g=[make_trajectory("a", "g", [1.0])])[0]
    assert await Judges([], 5.0, QUICK).settle(group) == (group, None)


async def test_branches_go_on_sharing_their_steps() -> None:
    trunk = make_trajectory("a", "g", [0.0, 1.0])
    branch = replace(trunk, id="b", steps=(trunk.steps[0], *make_trajectory("b", "g", [0.0]).steps))
    group, _ = await Judges([RewardTerm("v", BranchValue(), 2.0)], 5.0, QUICK).settle(make_groups(g=[trunk, branch])[0])
    one, two = group.trajectories
    assert one.steps[0] is two.steps[0]
    assert [step.reward for step in one.steps] == [0.0, 1.0 + 2.0 * 0.5]
    assert [step.reward for step in two.steps] == [0.0, 2.0 * -0.5]


@pytest.mark.parametrize("wrong", [{}, {"a/0": float("nan")}, {"a/0": 1.0, "other": 2.0}])
async def test_a_number_for_every_step_and_no_other_is_needed(wrong: dict[str, float]) -> None:
    class Wrong:
        async def score_group(self, group: Group) -> Mapping[str, float]:
            return wrong

    group = make_groups(g=[make_trajectory("a", "g", [1.0])])[0]
    with pytest.raises(JudgesFailed, match=r"'w' failed 2 times.* numbers for the 1 steps of group g"):
        await Judges([RewardTerm("w", Wrong())], 5.0, QUICK).settle(group)


async def test_a_model_of_groups_that_is_down_stops_the_run_and_its_groups_are_never_scored() -> None:
    ledger = Diary()
    with pytest.raises(TrainingError, match=r"unscored: 3.*'ranked' failed 2 times.*no answer at port 80"):
        await collected(Ranked(down=True), ledger)
    assert set(ledger.dropped.values()) == {"unscored"} and not ledger.settled and not ledger.batches


def test_a_settlement_survives_a_restart_and_ends_with_a_new_record(tmp_path: Path) -> None:
    said = Settlement(("g0-0", "g0-1"), {"ranked": {"g0-0.0": 1.5, "ü": -2.0}})

    def ended(name: str) -> Trajectory:
        return trajectory(name, versions=(0, 0))

    with Ledger(tmp_path) as ledger:
        ledger.issue(0, "g0", Task("t", "env"), ["g0-0", "g0-1", "g0-2"])
        ledger.finish(ended("g0-0"), ended("g0-1"))
        ledger.settle("g0", said)
    with Ledger(tmp_path) as ledger:
        (group,) = ledger.resume(0, 0).groups
        assert group.settled == said and same(group.recorded[1], ended("g0-1"))
        ledger.finish(ended("g0-2"))
        (group,) = ledger.resume(0, 0).groups
        assert group.settled is None and sorted(group.recorded) == [0, 1, 2]
        ledger.settle("g0", said)
        (group,) = ledger.resume(5, 0).groups
        assert group.settled is None and not group.recorded, "too old: played again under the same names"
        ledger.settle("g0", said)
        ledger.issue(0, "g0", Task("other", "env"), ["g0-0"])
        assert [group.settled for group in ledger.resume(0, 0).groups] == [None]
