"""Forks: what they share, how their world gets there, what the policy is told, and what a resumed group keeps."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from fakes_rollout import Diary, Engine, Renderer, SetSampler, World, same

from agentrl.batch import build_batch
from agentrl.errors import ConfigError, InfrastructureFault, InvalidDataError
from agentrl.protocols import Demands, Rollout
from agentrl.rollout.accounting import BatchShape
from agentrl.rollout.collector import Collector
from agentrl.rollout.context import Window
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.forking import NO_DEMANDS, orphaned
from agentrl.rollout.group import GroupRollout
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.rollout.rewarding import RewardTerm
from agentrl.rollout.strategies.rounds import sampled
from agentrl.rollout.tokens import TokenPlayer
from agentrl.store.records import decode, encode
from agentrl.types import Group, Message, Source, Status, Task, Trajectory

QUICK = Supervision(backoff=0.001, failure_window=1000)
FORKS = Demands(forks=True)
TASK = Task("t", "counter", data={"length": 5})


def engine_of(world: World, engine: Engine, **rest: object) -> RolloutEngine:
    rest.setdefault("supervision", QUICK)
    return RolloutEngine(world, TokenPlayer(engine, Renderer()), **rest)  # type: ignore[arg-type]


def group_of(play: RolloutEngine, demands: Demands = FORKS) -> GroupRollout:
    return play.group("g000001", demands=demands)


def texts(trajectory: Trajectory) -> list[str]:
    return [step.action.text for step in trajectory.steps]


@pytest.mark.parametrize("copies", [False, True])
async def test_a_fork_shares_what_came_before_token_for_token_and_samples_anew(copies: bool) -> None:
    world, engine = World(copies=copies), Engine()
    async with engine_of(world, engine) as play:
        group = group_of(play)
        parent = await group.episode(TASK, 0)
        fork = await group.fork(parent, 2, 1)
        others = [await group.fork(parent, 2, member) for member in range(2, 8)]
    assert fork.status is Status.OK and fork.source is Source.POLICY
    assert fork.steps[:2] == parent.steps[:2] and fork.forked_from == "g000001-0.1"
    assert [step.id for step in fork.own] == ["g000001-1.2", "g000001-1.3", "g000001-1.4"]
    assert (fork.steps[2].previous, fork.steps[2].context) == ("g000001-0.1", "g000001-0.1")
    assert np.array_equal(fork.steps[2].prompt, parent.steps[2].prompt)
    assert fork.steps[2].observation == parent.steps[2].observation
    assert len({tuple(texts(other)) for other in (fork, *others)}) > 3
    last = engine.requests[7]
    assert np.array_equal(fork.tokens_through(fork.steps[4]), np.concatenate([last.tokens, fork.steps[4].tokens]))
    assert dict(play.forks) == {"restored" if copies else "replayed": 7}
    assert world.restored == 7 * copies and world.open == 0
    assert sampled([parent, fork]) == 2 * (5 + 3)
    assert [step.snapshot for step in parent.steps] == [None, *({"steps": n} if copies else None for n in range(1, 5))]
    assert same(decode(encode(fork)), fork)


async def test_a_fork_before_the_first_step_shares_nothing() -> None:
    async with engine_of(World(), Engine()) as play:
        group = group_of(play)
        parent = await group.episode(TASK, 0)
        fork = await group.fork(parent, 0, 1)
    assert fork.forked_from is None and fork.own == fork.steps and not play.forks
    assert fork.steps[0].observation == parent.steps[0].observation and texts(fork) != texts(parent)


async def test_a_world_that_does_not_repeat_itself_is_a_fault_with_the_step_and_the_advice() -> None:
    async with engine_of(World(), Engine()) as play:
        group = group_of(play, NO_DEMANDS)
        parent = await group.episode(TASK, 0)
        changed = replace(parent.steps[1], observation=replace(parent.steps[1].observation, state_key="elsewhere"))
        record = replace(parent, steps=(parent.steps[0], changed, *parent.steps[2:]))
        fork = await group.fork(record, 3, 1)
        paid = replace(parent, steps=(replace(parent.steps[0], reward=7.0), *parent.steps[1:]))
        other = await group.fork(paid, 2, 2)
    assert fork.status is Status.ENVIRONMENT_ERROR and fork.attempt == 2 and not fork.success
    assert "not deterministic at step 1" in fork.error and "'elsewhere'" in fork.error
    assert "snapshot" in fork.error and 'strategy = "independent"' in fork.error
    assert "not deterministic at step 0: its reward was 7.0 and is 0.0" in other.error


async def test_a_snapshot_that_comes_to_another_state_is_a_fault() -> None:
    async with engine_of(World(copies=True), Engine()) as play:
        group = group_of(play)
        parent = await group.episode(TASK, 0)
        wrong = replace(parent.steps[2], snapshot={"steps": 4})
        record = replace(parent, steps=(*parent.steps[:2], wrong, *parent.steps[3:]))
        fork = await group.fork(record, 2, 1)
    assert fork.status is Status.ENVIRONMENT_ERROR and "came to state 's4'; it was taken in 's2'" in fork.error


async def test_what_cannot_be_forked_is_refused() -> None:
    async with engine_of(World(), Engine()) as play:
        group = group_of(play)
        parent = await group.episode(TASK, 0)
        for record, at in ((parent, 5), (parent, -1), (replace(parent, status=Status.ENVIRONMENT_ERROR), 1)):
            with pytest.raises(InvalidDataError, match="cannot be forked before step"):
                await group.fork(record, at, 1)


async def test_what_a_fork_is_told_is_shown_and_trains_and_a_fork_of_it_can_be_replayed() -> None:
    async with engine_of(World(), Engine()) as play:
        group = group_of(play)
        parent = await group.episode(TASK, 0)
        told = await group.fork(parent, 2, 1, told="look again")
        below = await group.fork(told, 3, 2)
        again = await group.fork(told, 2, 3, told="and again")
    first = told.steps[2]
    assert first.observation.messages[-1].content.endswith("\n\nlook again") and first.told == "look again"
    assert "look again" in Renderer().decode(first.prompt) and len(first.seen) == 0
    assert told.source is Source.POLICY and below.status is again.status is Status.OK
    assert below.steps[2] is told.steps[2] and below.forked_from == told.steps[2].id
    assert again.steps[2].observation.messages[-1].content.endswith("look again\n\nand again")


@pytest.mark.parametrize("window", [None, 1])
async def test_what_a_fork_is_given_is_seen_and_not_trained_with(window: int | None) -> None:
    engine = Engine()
    player = TokenPlayer(engine, Renderer(), Window(window)) if window else TokenPlayer(engine, Renderer())
    async with RolloutEngine(World(), player, supervision=QUICK) as play:
        group = group_of(play)
        parent = await group.episode(TASK, 0)
        before = len(engine.requests)
        fork = await group.fork(parent, 2, 1, given="go left")
        plain = await group.fork(fork, 3, 2)
    assert fork.source is Source.GUIDED and fork.given == "go left" and plain.source is Source.POLICY
    seen = [Renderer().decode(request.tokens) for request in engine.requests[before : before + 3]]
    assert all("go left" in text for text in seen)
    batch = build_batch([Group("g", TASK, (fork,))])
    assert not any("go left" in Renderer().decode(context.tokens) for context in batch.contexts)
    assert batch.table.guided is not None and batch.table.inherited is not None
    assert batch.table.guided.tolist() == [False, False, True, True, True]
    assert batch.table.inherited.tolist() == [True, True, False, False, False]
    # What the engine was really given: `seen` in place of `prompt`, along the context.
    for step, request in zip(fork.own, engine.requests[before:], strict=False):
        chain = fork.context_of(step)
        parts = [part for s in chain for part in (s.seen if len(s.seen) else s.prompt, s.tokens)]
        assert np.array_equal(np.concatenate(parts[:-1]), request.tokens)
    assert "go left" not in Renderer().decode(engine.requests[-2].tokens)


async def test_a_shared_step_is_scored_with_its_fork_and_never_twice() -> None:
    class Length:
        async def score(self, trajectory: Trajectory) -> Sequence[float]:
            return [10.0 + len(trajectory.steps)] * len(trajectory.steps)

    terms = [RewardTerm("length", Length(), 0.5)]
    async with engine_of(World(), Engine(lambda request: "a"), rewards=terms) as play:
        group = group_of(play)
        parent = await group.episode(TASK, 0)
        fork = await group.fork(parent, 3, 1)
    assert [step.reward for step in parent.steps] == [step.reward for step in fork.steps] == [8.5] * 5
    assert [step.scores for step in fork.steps] == [{"environment": 1.0, "length": 15.0}] * 5


async def test_entropy_is_kept_where_asked_for_and_an_engine_without_it_is_refused() -> None:
    class Mute(Engine):
        def alternatives(self, token: int) -> dict[int, float]:
            return {token: -1.0}

    demands = Demands(forks=True, top_logprobs=4)
    async with engine_of(World(), Engine()) as play:
        trajectory = await group_of(play, demands).episode(TASK, 0)
        plain = await group_of(play).episode(TASK, 0)
    for step in trajectory.steps:
        assert step.scores["entropy"] == pytest.approx(np.mean([np.log(2 + token % 3) for token in step.tokens]))
    assert all("entropy" not in step.scores for step in plain.steps)
    async with engine_of(World(), Mute()) as play:
        with pytest.raises(ConfigError, match=r"needs the 4 likeliest tokens .* the engine reported 1"):
            await group_of(play, demands).episode(TASK, 0)


async def test_the_policy_is_asked_outside_of_any_episode() -> None:
    engine = Engine(lambda request: "because")
    async with engine_of(World(), engine) as play:
        group = group_of(play)
        assert await group.ask((Message("user", "why?"),), 3) == "because"
        dice = group.dice("here")
        assert dice.random() == group.dice("here").random() != group.dice("there").random()
        assert play.group("g000002").dice("here").random() != group.dice("here").random()
        with pytest.raises(InfrastructureFault, match="does not fit the context"):
            await group.ask((Message("user", "why?" * 2000),), 3)
    assert Renderer().decode(engine.requests[0].tokens) == "user:why?"
    assert engine.forgotten == ["g000001-3-asked"] * 2 and isinstance(dice, random.Random)


class Forker:
    """Two episodes and two forks of the first."""

    demands = FORKS

    async def run(self, task: Task, size: int, rollout: Rollout) -> Sequence[Trajectory]:
        one, two = await rollout.episode(task, 0), await rollout.episode(task, 1)
        return [one, two, *[await rollout.fork(one, len(one.steps) - 1, member) for member in range(2, size)]]


class Issued:
    def __init__(self, recorded: dict[int, Trajectory], task: Task) -> None:
        self.id, self.ordinal, self.task, self.recorded = "g000000", 0, task, recorded
        self.settled = None


class Left:
    """Where an earlier life left off."""

    update, ordinal = 0, 1

    def __init__(self, *groups: Issued) -> None:
        self.groups = groups


async def collected(recorded: dict[int, Trajectory]) -> tuple[list[Group], Diary, Engine]:
    engine, diary = Engine(), Diary()
    diary.live["g000000"] = 0
    diary.finished += [trajectory.id for trajectory in recorded.values()]
    shape = BatchShape(1, 4)
    async with (
        engine_of(World(), engine, limits=EpisodeLimits(), seed=4) as play,
        Collector(play, Forker(), SetSampler(), diary, shape) as collector,
    ):
        collector.resume(Left(Issued(recorded, TASK)))  # type: ignore[arg-type]
        batch = await collector.next_batch(0)
        forks = collector.take_statistics().forks
    taken_over = batch[0].id == "g000000" and sum(t.forked_from is not None for t in recorded.values())
    assert forks == {"replayed": 2 - taken_over}
    return batch, diary, engine


async def test_a_half_played_group_is_completed_with_its_recorded_forks_as_they_are() -> None:
    (whole,), _, calm = await collected({})
    played = dict(enumerate(whole.trajectories))
    (again,), diary, engine = await collected({0: played[0], 1: played[1], 2: played[2]})
    assert [t.id for t in again.trajectories] == ["g000000-0", "g000000-1", "g000000-2", "g000000-3"]
    assert again.trajectories[2] is played[2] and texts(again.trajectories[3]) == texts(played[3])
    assert len(engine.requests) == 1 < len(calm.requests)
    assert sorted(diary.finished) == [t.id for t in again.trajectories]


async def test_a_group_whose_fork_has_lost_its_parent_begins_anew_under_a_new_name() -> None:
    (whole,), _, _ = await collected({})
    played = dict(enumerate(whole.trajectories))
    assert not orphaned(played) and not orphaned({0: played[0]})
    assert orphaned({1: played[1], 2: played[2]})
    step = played[0].steps[0]
    other = replace(played[0], steps=(replace(step, tokens=step.tokens[::-1].copy()), *played[0].steps[1:]))
    assert orphaned({0: other, 2: played[2]})
    (again,), diary, _ = await collected({1: played[1], 2: played[2]})
    assert again.id == "g000000r1" and len(again.trajectories) == 4
    assert diary.dropped == {"g000000": "stale"} and diary.live["g000000r1"] == 0
