"""Batches: complete groups, under the staleness bound, with nothing lost and nothing used twice."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from fakes_rollout import Diary, Engine, Renderer, SetSampler, World, broken, jitter, numbers
from hypothesis import given, settings
from hypothesis import strategies as st
from still_clock import still_clock

from agentrl.errors import ConfigError, StoreError, TrainingError
from agentrl.protocols import Rollout, RolloutStrategy
from agentrl.rollout.accounting import BatchShape, without_filter
from agentrl.rollout.collector import Collector
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.group import oldest_version
from agentrl.rollout.limits import Supervision
from agentrl.rollout.strategies.independent import Independent
from agentrl.rollout.tokens import TokenPlayer
from agentrl.types import Group, Status, Task, Trajectory

QUICK = Supervision(backoff=0.001, failure_window=10_000, attempts=1)
SHAPE = BatchShape(groups=3, group_size=2)


class Bench:
    """A collector with everything that it needs, in pieces."""

    def __init__(
        self,
        shape: BatchShape = SHAPE,
        *,
        world: World | None = None,
        engine: Engine | None = None,
        ledger: Diary | None = None,
        keep: Callable[[Group], bool] = without_filter,
        supervision: Supervision = QUICK,
        strategy: RolloutStrategy | None = None,
    ) -> None:
        self.world, self.engine, self.sampler = world or World(), engine or Engine(), SetSampler()
        self.ledger = ledger or Diary()
        self.records: list[Trajectory] = []
        self.rollout = RolloutEngine(
            self.world, TokenPlayer(self.engine, Renderer()), supervision=supervision, on_trajectory=self.records.append
        )
        self.collector = Collector(self.rollout, strategy or Independent(), self.sampler, self.ledger, shape, keep=keep)

    async def __aenter__(self) -> Bench:
        await self.rollout.__aenter__()
        await self.collector.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.collector.__aexit__(None, None, None)
        await self.rollout.__aexit__(None, None, None)

    async def train(self, batches: int) -> list[list[Group]]:
        """Collect and raise the version, as the loop does."""
        found = []
        for _ in range(batches):
            found.append(await self.collector.next_batch(self.engine.version))
            await asyncio.sleep(0)
            self.engine.version += self.collector.shape.versions_per_batch
        return found


async def test_bound_zero_equals_a_plain_synchronous_run_number_for_number() -> None:
    """Against a loop that plays one episode after the other and drops the same groups."""

    def keep(group: Group) -> bool:
        return group.trajectories[0].reward != group.trajectories[1].reward

    def trouble(verb: str, task: Task, step: int) -> Exception | None:
        return broken() if task.seed % 7 == 5 else None

    async with Bench(engine=Engine(latency=jitter(1)), world=World(trouble), keep=keep) as bench:
        collected = await bench.train(4)

    plain, sampler, engine = [], SetSampler(), Engine()
    async with RolloutEngine(World(trouble), TokenPlayer(engine, Renderer()), supervision=QUICK) as rollout:
        for _ in range(4):
            batch: list[Group] = []
            while len(batch) < 3:
                name = f"g{sampler.given:06d}"
                (task,) = sampler.next(1)
                view = rollout.group(name)
                played = [await view.episode(task, member) for member in range(2)]
                group = Group(name, task, tuple(t for t in played if t.status.trains))
                if len(group.trajectories) == 2 and keep(group):
                    batch.append(group)
            plain.append(batch)
            engine.version += 1
    assert numbers(collected) == numbers(plain)
    assert bench.sampler.given == sampler.given
    assert bench.sampler.observed == sorted(bench.sampler.observed)


@still_clock
async def test_with_bound_zero_nothing_is_in_flight_between_batches() -> None:
    async with Bench() as bench:
        await bench.collector.next_batch(0)
        await asyncio.sleep(0.01)
        assert bench.engine.running == 0 and bench.sampler.given == 3
        statistics = bench.collector.take_statistics()
    assert (statistics.issued, statistics.finished, statistics.used) == (3, 3, 3)
    assert statistics.staleness == {0: 3} and statistics.episodes == {"ok": 6}
    assert (statistics.in_flight, statistics.ready) == (0, 0)


@still_clock
async def test_with_bound_two_groups_are_played_ahead_and_used_within_the_bound() -> None:
    shape = replace(SHAPE, max_staleness=2)
    async with Bench(shape, engine=Engine(latency=jitter(2))) as bench:
        first = await bench.collector.next_batch(0)
        assert bench.sampler.given == 9
        await asyncio.sleep(0.1)
        assert bench.collector.take_statistics().ready == 6
        bench.engine.version = 1
        second = await bench.collector.next_batch(1)
        waiting = {f"g{ordinal:06d}" for ordinal in range(9)} - {group.id for group in first}
        assert [group.id for group in second] == sorted(waiting)[:3]
        assert bench.collector.take_statistics().staleness == {1: 3}


async def test_minibatches_count_as_versions() -> None:
    assert BatchShape(groups=4, group_size=2, max_staleness=5, versions_per_batch=2).ahead == 8


@still_clock
async def test_a_group_too_old_at_the_cut_is_dropped_and_its_task_issued_again() -> None:
    async with Bench(replace(SHAPE, max_staleness=1)) as bench:
        await bench.collector.next_batch(0)
        await asyncio.sleep(0.02)
        bench.engine.version = 5
        batch = await bench.collector.next_batch(5)
        statistics = bench.collector.take_statistics()
    live = bench.ledger.live
    assert {name for name in live if "r" in name} == {f"{name}r1" for name in bench.ledger.dropped}
    assert statistics.dropped == {"stale": 3} and len(bench.ledger.dropped) == 3
    assert all(oldest_version(group.trajectories) == 5 for group in batch)


@still_clock
async def test_groups_in_flight_that_are_lost_to_the_bound_are_cancelled_early() -> None:
    """The second step of group 3 hangs; its first is of version 0."""
    stuck = Engine(latency=lambda request: 30 * (request.session.startswith("g000003-") and len(request.tokens) > 14))
    async with Bench(replace(SHAPE, groups=2, max_staleness=1), engine=stuck) as bench:
        bench.sampler.given = 1
        await bench.collector.next_batch(0)
        await asyncio.sleep(0.02)
        stuck.version = 4
        await bench.train(3)
    assert "g000003r1" in bench.ledger.live and bench.ledger.dropped["g000003"] == "stale"
    assert [r.status for r in bench.records if r.group == "g000003"] == [Status.CANCELLED] * 2


async def test_a_group_with_too_few_members_left_is_dropped_and_not_scored() -> None:
    world = World(lambda verb, task, step: broken() if task.seed == 1 else None)
    async with Bench(world=world) as bench:
        (batch,) = await bench.train(1)
        statistics = bench.collector.take_statistics()
    assert [group.task.id for group in batch] == ["t0", "t2", "t3"]
    assert statistics.dropped == {"faults": 1} and statistics.episodes == {"ok": 6, "environment_error": 2}
    assert bench.ledger.dropped == {"g000001": "faults"}


async def test_a_group_is_used_with_the_members_that_are_left() -> None:
    calls = iter([broken()])
    world = World(lambda verb, task, step: next(calls, None))
    async with Bench(replace(SHAPE, minimum_group=1), world=world) as bench:
        (batch,) = await bench.train(1)
    assert [len(group.trajectories) for group in batch] == [1, 2, 2]


async def test_endless_filtering_stops_with_advice() -> None:
    async with Bench(replace(SHAPE, max_dropped=5), keep=lambda group: False) as bench:
        with pytest.raises(TrainingError, match=r"6 groups were dropped .*filtered: 6.*0 of 3.*higher temperature"):
            await bench.collector.next_batch(0)


async def test_an_engine_that_never_gets_the_new_weights_is_found_out() -> None:
    async with Bench(replace(SHAPE, max_dropped=8)) as bench:
        with pytest.raises(TrainingError, match="publish before collecting"):
            await bench.collector.next_batch(3)


class EndsWhenCancelled:
    """Its groups are complete only once they are swept: then what was played comes back."""

    async def run(self, task: Task, size: int, rollout: Rollout) -> Sequence[Trajectory]:
        played = [await rollout.episode(task, member) for member in range(size)]
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return played


async def test_what_is_completed_while_the_sweep_waits_is_swept_too() -> None:
    supervision = replace(QUICK, stall_deadline=30.0)
    async with Bench(replace(SHAPE, max_dropped=8), strategy=EndsWhenCancelled(), supervision=supervision) as bench:
        with pytest.raises(TrainingError, match=r"9 groups were dropped .*publish before collecting"):
            await bench.collector.next_batch(3)
    assert bench.collector.take_statistics().used == 0


async def test_a_stalled_rollout_names_what_it_waits_for() -> None:
    supervision = replace(QUICK, stall_deadline=0.2)
    async with Bench(engine=Engine(latency=lambda request: 30), supervision=supervision) as bench:
        with pytest.raises(TrainingError, match=r"no episode has moved .*g000000-0: the model"):
            await bench.collector.next_batch(0)
    assert len(bench.records) == 6 and bench.world.open == 0


async def test_a_ledger_that_cannot_write_stops_the_run() -> None:
    class Full(Diary):
        def finish(self, *trajectories: object) -> None:
            raise StoreError("disk full")

    async with Bench(ledger=Full()) as bench:
        with pytest.raises(StoreError, match="disk full"):
            await bench.collector.next_batch(0)


async def test_a_strategy_with_a_bug_stops_the_run() -> None:
    class Wrong:
        async def run(self, task: Task, size: int, rollout: Rollout) -> Sequence[Trajectory]:
            raise KeyError("branch")

    async with Bench(strategy=Wrong()) as bench:
        with pytest.raises(KeyError, match="branch"):
            await bench.collector.next_batch(0)


@pytest.mark.parametrize("wrong", [{"groups": 0}, {"minimum_group": 3}, {"max_staleness": -1}])
def test_a_shape_that_makes_no_batch_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        replace(SHAPE, **wrong)  # type: ignore[arg-type]


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    bound=st.integers(0, 3),
    groups=st.integers(1, 4),
    size=st.integers(1, 3),
    slots=st.integers(1, 9),
)
def test_no_task_is_lost_no_trajectory_is_used_twice_and_the_bound_holds(
    seed: int, bound: int, groups: int, size: int, slots: int
) -> None:
    dice = random.Random(seed)
    shape = BatchShape(groups, size, minimum_group=1, max_staleness=bound, max_dropped=10_000)
    world = World(lambda verb, task, step: dice.choice([None] * 8 + [broken(), 0.001]))
    supervision = replace(QUICK, environment_slots=slots)

    async def run() -> tuple[Bench, list[list[Group]]]:
        async with Bench(
            shape,
            world=world,
            engine=Engine(latency=jitter(seed)),
            keep=lambda group: dice.random() < 0.8,
            supervision=supervision,
        ) as bench:
            batches = []
            for _ in range(5):
                version = bench.engine.version
                batches.append(await bench.collector.next_batch(version))
                for group in batches[-1]:
                    oldest = oldest_version(group.trajectories)
                    assert oldest is not None and version - bound <= oldest
                    assert max(int(step.versions.max()) for step in group.steps()) <= version
                await asyncio.sleep(dice.random() * 0.01)
                bench.engine.version += dice.choice([1, 1, 2])
        return bench, batches

    bench, batches = asyncio.run(run())
    assert [len(batch) for batch in batches] == [groups] * 5
    used = [trajectory.id for batch in batches for group in batch for trajectory in group.trajectories]
    assert len(used) == len(set(used))
    records = [record.id for record in bench.records]
    assert len(records) == len(set(records))
    ordinals = {int(group[1:7]) for group in bench.ledger.live}
    assert ordinals == set(range(bench.sampler.given))
    assert world.open == 0 and bench.engine.running == 0
    for batch in batches:
        assert [group.id for group in batch] == sorted(group.id for group in batch)


def test_arrays_of_batches_are_of_the_contracted_types() -> None:
    async def one() -> list[Group]:
        async with Bench() as bench:
            return await bench.collector.next_batch(0)

    for group in asyncio.run(one()):
        for step in group.steps():
            assert step.tokens.dtype == step.versions.dtype == step.prompt.dtype == np.int32
            assert step.logprobs.dtype == np.float32
