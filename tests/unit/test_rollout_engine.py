"""Supervision: slots, retries, deadlines, records, the failure bound, one way out."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from fakes_rollout import Engine, Renderer, World, broken, tasks
from hypothesis import given, settings
from hypothesis import strategies as st
from still_clock import still_clock

from agentrl.errors import InfrastructureFault, TrainingError
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.rollout.rewarding import RewardTerm
from agentrl.rollout.strategies.independent import Independent
from agentrl.rollout.tokens import TokenPlayer
from agentrl.types import Status, Task, Trajectory

QUICK = Supervision(backoff=0.001, failure_window=1000)


def rollout(world: World, engine: Engine, records: list[Trajectory] | None = None, **rest: object) -> RolloutEngine:
    rest.setdefault("supervision", QUICK)
    note = None if records is None else records.append
    return RolloutEngine(world, TokenPlayer(engine, Renderer()), on_trajectory=note, **rest)  # type: ignore[arg-type]


async def test_independent_members_come_back_in_order_and_differ_by_seed() -> None:
    engine = Engine(latency=lambda request: 0.01 * random.Random(request.session).random())
    async with rollout(World(), engine) as play:
        group = await Independent().run(tasks(3)[2], 8, play)
        again = await Independent().run(tasks(3)[2], 8, play)
    assert [trajectory.id for trajectory in group] == [f"t2-{member}" for member in range(8)]
    assert len({step.action.text for trajectory in group for step in trajectory.steps}) > 2
    assert texts(group) == texts(again)


async def test_slots_bound_live_environments_and_requests() -> None:
    world, engine = World(), Engine(latency=lambda request: 0.002)
    slots = Supervision(environment_slots=5, engine_slots=3)
    async with rollout(world, engine, supervision=slots) as play:
        await asyncio.gather(*(play.episode(task, 0) for task in tasks(20)))
    assert world.peak == 5 and engine.peak == 3 and world.open == 0


async def test_a_passing_fault_is_retried_in_a_fresh_environment_and_changes_no_number() -> None:
    faults = iter([broken(), ValueError("a bug")])
    world = World(lambda verb, task, step: next(faults, None) if step == 1 else None)
    async with rollout(world, Engine()) as play, rollout(World(), Engine()) as calm:
        trajectory = await play.episode(tasks(3)[2], 4)
        undisturbed = await calm.episode(tasks(3)[2], 4)
    assert trajectory.status is Status.OK and trajectory.attempt == 2
    assert world.made == 3 and world.open == 0
    assert texts([trajectory]) == texts([undisturbed])


@pytest.mark.parametrize(
    ("world", "engine", "status", "words"),
    [
        (World(lambda *_: broken("no disk")), Engine(), Status.ENVIRONMENT_ERROR, "EnvironmentFault: no disk"),
        (World(lambda *_: KeyError("x")), Engine(), Status.ENVIRONMENT_ERROR, "KeyError"),
        (World(), Engine(lambda request: 1 // 0), Status.INFRASTRUCTURE_ERROR, "ZeroDivisionError"),  # type: ignore[arg-type,return-value]
    ],
)
async def test_a_lasting_fault_is_one_record_with_its_cause(
    world: World, engine: Engine, status: Status, words: str
) -> None:
    records: list[Trajectory] = []
    async with rollout(world, engine, records) as play:
        trajectory = await play.episode(tasks(1)[0], 0)
    assert records == [trajectory]
    assert trajectory.status is status and words in trajectory.error
    assert world.made == 3 and world.open == 0 and not trajectory.success


@still_clock
async def test_an_episode_that_outlives_its_deadline_says_what_it_waited_for() -> None:
    limits = EpisodeLimits(episode_deadline=0.03)
    supervision = Supervision(attempts=1)
    async with rollout(World(), Engine(latency=lambda request: 9), limits=limits, supervision=supervision) as play:
        trajectory = await play.episode(tasks(1)[0], 0)
    assert trajectory.status is Status.INFRASTRUCTURE_ERROR
    assert "0.03 s (episode_deadline)" in trajectory.error and "the model" in trajectory.error


@still_clock
async def test_waiting_names_every_episode_and_what_holds_it() -> None:
    gate = Supervision(environment_slots=1)
    async with rollout(World(), Engine(latency=lambda request: 9), supervision=gate) as play:
        works = [asyncio.create_task(play.episode(task, 0)) for task in tasks(2)]
        await asyncio.sleep(0.02)
        waits = {name: what for name, what, seconds in play.waiting() if seconds >= 0}
        await play.close()
        records = await asyncio.gather(*works)
    assert waits == {"t0-0": "the model", "t1-0": "an environment slot"}
    assert [record.status for record in records] == [Status.CANCELLED] * 2
    assert "the model" in records[0].error


async def test_closing_cancels_and_closes_everything_even_what_has_not_begun() -> None:
    world, records = World(), list[Trajectory]()
    play = rollout(world, Engine(latency=lambda request: 9), records)
    async with play:
        works = [asyncio.create_task(play.episode(task, 0)) for task in tasks(30)]
        await asyncio.sleep(0)
        works[29].cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*works, return_exceptions=True)
    assert len(records) == 30 and {record.status for record in records} == {Status.CANCELLED}
    assert len({record.id for record in records}) == 30
    assert world.open == 0 and play.waiting() == []
    with pytest.raises(TrainingError, match="closed"):
        await play.episode(tasks(1)[0], 0)


@still_clock
async def test_a_close_that_hangs_is_left_behind_at_its_deadline() -> None:
    class Stuck(World):
        def __call__(self):  # type: ignore[no-untyped-def]
            instance = super().__call__()
            instance.close = lambda: asyncio.sleep(30)
            return instance

    async with rollout(Stuck(), Engine(), limits=EpisodeLimits(close_deadline=0.02)) as play:
        trajectory = await play.episode(tasks(1)[0], 0)
    assert trajectory.status is Status.OK


async def test_sessions_are_forgotten_at_the_end_of_every_attempt() -> None:
    engine = Engine()
    faults = iter([None, broken()])
    async with rollout(World(lambda verb, task, step: next(faults, None)), engine) as play:
        await play.episode(tasks(1)[0], 0)
    assert engine.forgotten == ["t0-0", "t0-0.1"]


async def test_the_failure_bound_stops_the_run_with_causes_and_a_task() -> None:
    def trouble(verb: str, task: Task, step: int) -> Exception | None:
        if task.seed % 4 == 0:
            return None
        return broken(f"port {task.seed} is taken") if task.seed % 4 < 3 else ValueError("odd")

    records: list[Trajectory] = []
    bound = Supervision(failure_window=16, failure_bound=0.5, attempts=1, environment_slots=1)
    world = World(trouble)
    with pytest.raises(TrainingError) as caught:
        async with rollout(world, Engine(), records, supervision=bound) as play:
            await asyncio.gather(*(play.episode(task, 0) for task in tasks(40)))
    words = str(caught.value)
    assert "12 of the last 16" in words and "8 times: EnvironmentFault: port" in words and "4 times" in words
    assert "reproduces the first" in words and "environment 'counter'" in words
    assert world.open == 0 and len({record.id for record in records}) == len(records)
    with pytest.raises(TrainingError):
        await play.episode(tasks(1)[0], 0)


async def test_failures_that_only_come_early_do_not_stop_the_run() -> None:
    world = World(lambda verb, task, step: broken() if task.seed % 3 == 0 else 0.002)
    supervision = Supervision(failure_window=8, environment_slots=60, attempts=1)
    async with rollout(world, Engine(), supervision=supervision) as play:
        played = await asyncio.gather(*(play.episode(task, 0) for task in tasks(90)))
    assert sum(trajectory.status.trains for trajectory in played) == 60


class Judge:
    def __init__(self, replies: Sequence[object]) -> None:
        self.replies = iter(replies)

    async def score(self, trajectory: Trajectory) -> Sequence[float]:
        reply = next(self.replies)
        if isinstance(reply, Exception):
            raise reply
        return reply  # type: ignore[return-value]


async def test_reward_models_add_weighted_scores_under_their_names() -> None:
    terms = [
        RewardTerm("kind", Judge([InfrastructureFault("busy"), [1.0, 2.0]]), 0.5),
        RewardTerm("b", Judge([[4, 4]])),
    ]
    world = World()
    async with rollout(world, Engine(lambda request: "b"), rewards=terms) as play:
        trajectory = await play.episode(tasks(2)[1], 0)
    assert [step.reward for step in trajectory.steps] == [4.5, 5.0]
    assert dict(trajectory.steps[1].scores) == {"environment": 0.0, "kind": 2.0, "b": 4.0}
    assert world.made == 1


@pytest.mark.parametrize("reply", [[1.0], [float("nan"), 1.0], InfrastructureFault("down")])
async def test_a_judge_that_fails_is_never_a_zero(reply: object) -> None:
    world = World()
    async with rollout(world, Engine(), rewards=[RewardTerm("judge", Judge([reply] * 3))]) as play:
        trajectory = await play.episode(tasks(2)[1], 0)
    assert trajectory.status is Status.INFRASTRUCTURE_ERROR and "'judge' failed 3 times" in trajectory.error
    assert world.made == 1, "the episode is not played anew for a judge"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 25), cancel=st.booleans())
def test_every_dispatched_episode_ends_in_exactly_one_record(seed: int, count: int, cancel: bool) -> None:
    dice = random.Random(seed)

    def trouble(verb: str, task: Task, step: int) -> float | Exception | None:
        return dice.choice([None, None, 0.001, 0.001, broken(), KeyError("x"), TimeoutError()])

    world, records = World(trouble), list[Trajectory]()
    engine = Engine(latency=lambda request: dice.random() * 0.003)

    async def play_all() -> int:
        supervision = Supervision(environment_slots=4, engine_slots=2, attempts=2, backoff=0.001, failure_window=1000)
        async with rollout(world, engine, records, supervision=supervision) as play:
            works = [asyncio.create_task(play.episode(task, 0)) for task in tasks(count)]
            await asyncio.sleep(0)
            if cancel:
                for work in dice.sample(works, count // 2):
                    await asyncio.sleep(dice.random() * 0.003)
                    work.cancel()
                await asyncio.sleep(dice.random() * 0.003)
            else:
                await asyncio.gather(*works)
        await asyncio.gather(*works, return_exceptions=True)
        return len(works)

    dispatched = asyncio.run(play_all())
    assert sorted(record.id for record in records) == sorted(f"t{index}-0" for index in range(dispatched))
    assert world.open == 0 and engine.running == 0


def texts(trajectories: Sequence[Trajectory]) -> list[list[str]]:
    return [[step.action.text for step in trajectory.steps] for trajectory in trajectories]
