"""The pool of errors: what enters it, when it is drawn on, what a recovery shares, and that a kill forgets nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from builders import make_trajectory
from fakes_rollout import Diary, Engine, Renderer, SetSampler, World, numbers

from agentrl.batch import Taught, build_batch
from agentrl.errors import ConfigError, InfrastructureFault, StoreError
from agentrl.methods.forks import fission
from agentrl.plugins import load_host
from agentrl.protocols import GenerateRequest, TaskSampler
from agentrl.rollout.accounting import BatchShape, CollectorStatistics
from agentrl.rollout.collector import Collector
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.forking import demands_of, orphaned
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.rollout.strategies.diagnosis import LONGEST, Diagnosis, PolicyWriter
from agentrl.rollout.strategies.fission import Fission
from agentrl.rollout.strategies.pool import Mistake, PoolingSampler, last_error, read_order
from agentrl.rollout.tokens import TokenPlayer
from agentrl.runs.recoveries import ServerWriter, Simulator
from agentrl.runs.summary import shape_metrics, trained_columns
from agentrl.store.records import decode, encode
from agentrl.store.rows import row_of
from agentrl.types import JSON, Group, Message, Source, Task, Trajectory
from agentrl.view.lens import Lens

QUICK = Supervision(backoff=0.001, failure_window=1000)
LIMITS = EpisodeLimits(max_policy_errors=5, max_steps=6)
TASK = Task("t7", "counter", seed=7, data={"length": 3}, tags=("hard",))


def erring(request: GenerateRequest) -> str:
    """Refused ("?") half of the time, never right ("a") unless it was told of its error."""
    told = "failed" in Renderer().decode(request.tokens)
    return random.Random(request.sampling.seed).choice("ab" if told else "?b")


async def played(
    strategy: Fission, task: Task, size: int = 4, *, version: int = 0, **given: object
) -> list[Trajectory]:
    engine = Engine(erring)
    engine.version = version
    async with RolloutEngine(World(), TokenPlayer(engine, Renderer()), supervision=QUICK, limits=LIMITS) as play:
        name = str(given.pop("name", "g000000"))
        rollout = play.group(name, given.pop("recorded", None), demands=demands_of(strategy), **given)  # type: ignore[arg-type]
        return list(await strategy.run(task, size, rollout))


async def a_mistake() -> tuple[Mistake, Trajectory]:
    members = await played(Fission(), TASK, 8)
    group = Group("g000000", TASK, tuple(members))
    sampler = PoolingSampler(SetSampler(), 64, 0.5)
    sampler.observe(group)
    (entry, *_) = sampler.state()["pool"]
    parent = next(t for t in members if t.id == entry["trajectory"])
    return Mistake(TASK, parent.id, entry["at"], entry["error"]), parent


def failed(name: str, *errors: str, task: Task = TASK, success: bool = False) -> Trajectory:
    """An episode whose steps were refused with `errors`; an empty one was not."""
    found = make_trajectory(name, name.split("-")[0], [0.0] * len(errors))
    steps = [replace(step, error=error) for step, error in zip(found.steps, errors, strict=True)]
    steps[-1] = replace(steps[-1], scores={"success": float(success)})
    return replace(found, task=task, steps=tuple(steps))


def test_the_last_error_that_was_followed_by_a_step_is_where_another_try_begins() -> None:
    assert last_error(failed("g-0", "x", "", "y", "", "")) == 3
    assert last_error(failed("g-0", "x", "", "y")) == 1
    assert last_error(failed("g-0", "", "")) == 0


def pooled(*groups: Group, size: int = 64, share: float = 0.5) -> PoolingSampler:
    sampler = PoolingSampler(SetSampler(), size, share)
    for group in groups:
        sampler.observe(group)
    return sampler


def of(number: int, *members: Trajectory, task: Task = TASK) -> Group:
    return Group(f"g{number:06d}", task, members)


def test_failures_enter_the_pool_last_in_first_out_one_of_each_kind() -> None:
    other = Task("t8", "counter")
    sampler = pooled(
        of(0, failed("g0-0", "x", ""), failed("g0-1", "x", ""), failed("g0-2", "y", "", success=True)),
        of(1, failed("g1-0", "z", "", task=other), failed("g1-1", "", ""), task=other),
    )
    # The success recovered by itself, the third made no error, and the first reads as the second does.
    assert [entry["trajectory"] for entry in sampler.state()["pool"]] == ["g0-1", "g1-0"]
    first, second, third, fourth = sampler.next(4)
    assert [read_order(task) for task in (first, second, third, fourth)] == [None, ("g1-0", 1), None, ("g0-1", 1)]
    assert second.id == "t8" and fourth == replace(TASK, tags=("hard", "goes on from g0-1@1"))
    assert [task.id for task in sampler.next(3)] == ["t2", "t3", "t4"], "an empty pool gives its turns back"


def test_the_pool_forgets_the_oldest_and_what_is_due_does_not_add_up() -> None:
    sampler = pooled(size=2, share=0.5)
    sampler.next(20)
    for number in range(5):
        sampler.observe(of(number, failed(f"g{number}-0", f"e{number}", "")))
    assert [entry["error"] for entry in sampler.state()["pool"]] == ["e3", "e4"]
    assert [read_order(task) is not None for task in sampler.next(4)] == [True, False, True, False]


@pytest.mark.parametrize("sizes", [(1,) * 12, (3, 3, 3, 3), (12,), (5, 7)])
def test_tasks_do_not_depend_on_how_many_are_asked_for_at_once(sizes: tuple[int, ...]) -> None:
    groups = [of(number, failed(f"g{number}-0", f"e{number}", "")) for number in range(3)]
    sampler, whole = pooled(*groups, share=1 / 3), pooled(*groups, share=1 / 3)
    assert [task for size in sizes for task in sampler.next(size)] == list(whole.next(12))


def test_groups_from_the_pool_are_told_to_nobody_and_feed_nothing() -> None:
    sampler = pooled(of(0, failed("g0-0", "x", "")))
    _, recovery = sampler.next(2)
    before = sampler.state()["pool"]
    sampler.observe(Group("g000001", recovery, (failed("g1-0", "y", ""),)))
    assert sampler.state()["pool"] == before and sampler._inner.observed == ["g000000"]  # type: ignore[attr-defined]


def test_the_pool_goes_on_where_it_was_saved() -> None:
    one = pooled(*[of(n, failed(f"g{n}-0", f"e{n}", "")) for n in range(4)], share=0.4)
    one.next(3)
    two = PoolingSampler(SetSampler(), 64, 0.4)
    two.restore(json.loads(json.dumps(one.state())))
    assert list(one.next(9)) == list(two.next(9))


async def test_a_recovery_goes_on_from_the_error_and_only_its_own_tokens_are_trained_and_aged() -> None:
    mistake, parent = await a_mistake()
    order = mistake.order()
    members = await played(Fission(), order, 4, name="g000009", version=7, recall={parent.id: parent}.__getitem__)
    for number, t in enumerate(members):
        assert t.id == f"g000009-{number}" and t.task == TASK and t.forked_from == parent.steps[mistake.at - 1].id
        assert [s.id for s in t.steps[: mistake.at]] == [s.id for s in parent.steps[: mistake.at]]
        assert t.own[0].told == "That call failed: what? Correct it and go on."
        assert [s.trains for s in t.steps] == [False] * mistake.at + [True] * len(t.own)
        assert t.oldest_version == row_of(t, 0)["oldest"] == 7
    assert not orphaned(dict(enumerate(members))), "what it begins with is nobody's in its group"
    batch = fission().batch([Group("g000009", order, tuple(members))])
    assert batch.table.length[batch.table.index < mistake.at].sum() == 0
    assert len(batch.columns) == sum(len(step.tokens) for t in members for step in t.own)
    assert set(batch.columns.version.tolist()) == {7}
    trained = np.concatenate([c.tokens[c.column >= 0] for c in batch.contexts])
    assert np.array_equal(np.sort(trained), np.sort(batch.columns.token))
    # The path that is computed is the one that the engine read.
    for t, context in zip(members, batch.contexts, strict=True):
        assert np.array_equal(context.tokens, t.tokens_through(t.steps[-1]))
    # Hand-worked: rewards of one recovery group are compared with one another only.
    returns = np.array([t.reward for t in members])
    expected = (returns - returns.mean()) / (returns.std(ddof=1) + 1e-6)
    per_trajectory = [batch.advantage[batch.table.trajectory[batch.columns.row] == n] for n in range(4)]
    assert returns.std() > 0
    for values, value in zip(per_trajectory, expected, strict=True):
        np.testing.assert_allclose(values, value, rtol=1e-5)


async def test_what_a_token_was_trained_with_stands_beside_its_own_step() -> None:
    mistake, parent = await a_mistake()
    members = await played(Fission(), mistake.order(), name="g000009", recall={parent.id: parent}.__getitem__)
    batch = fission().batch([Group("g000009", mistake.order(), tuple(members))])
    told = Taught(batch.advantage, batch.scale, np.zeros_like(batch.advantage))
    for trajectory, trained in zip(members, trained_columns(batch, told, 0), strict=True):
        found = Lens(trajectory, [trained]).step_advantages()
        assert found[: mistake.at] == [None] * mistake.at
        assert found[mistake.at :] == pytest.approx([float(trained.advantage[0])] * len(trajectory.own))
    told_of = shape_metrics(batch.groups, CollectorStatistics())
    assert told_of["sampled_tokens_per_group"] == len(batch.columns)


async def test_a_recovery_survives_the_store_and_a_resumed_group_is_the_same() -> None:
    mistake, parent = await a_mistake()
    recall = {parent.id: parent}.__getitem__
    whole = await played(Fission(), mistake.order(), recall=recall)
    kept = {0: decode(encode(whole[0])), 2: whole[2]}
    assert [step.source for step in kept[0].steps] == [step.source for step in whole[0].steps]
    again = await played(Fission(), mistake.order(), recorded=kept, recall=recall)
    assert numbers([[Group("g", TASK, tuple(again))]]) == numbers([[Group("g", TASK, tuple(whole))]])
    with pytest.raises(StoreError, match="keeps no records"):
        await played(Fission(), mistake.order())


async def test_a_fork_within_its_group_trains_what_it_shares() -> None:
    async with RolloutEngine(World(), TokenPlayer(Engine(), Renderer()), supervision=QUICK) as play:
        rollout = play.group("g000001", demands=demands_of(Fission()))
        one = await rollout.episode(TASK, 0)
        two = await rollout.fork(one, 1, 1)
    assert all(step.source is Source.POLICY for step in two.steps)
    assert len(build_batch([Group("g000001", TASK, (one, two))]).columns) == sum(
        len(step.tokens) for t in (one, two) for step in t.steps
    )


async def batches(diary: Diary, sampler: TaskSampler, count: int) -> tuple[list[Sequence[Group]], JSON]:
    """`count` batches on weights that change with each, and the sampler's state behind them."""
    engine = Engine(erring)
    async with (
        RolloutEngine(World(), TokenPlayer(engine, Renderer()), supervision=QUICK, limits=LIMITS) as play,
        Collector(play, Fission(share=0.4), sampler, diary, BatchShape(3, 4)) as collector,
    ):
        found = []
        for engine.version in range(count):
            found.append(await collector.next_batch(engine.version))
        return found, (await collector.position())[1]


async def test_a_run_that_begins_again_from_a_checkpoint_recovers_from_the_same_errors() -> None:
    diary = Diary()
    _, state = await batches(diary, Fission(share=0.4).around(SetSampler()), 2)
    owners = {step.id: t for t in diary.records.values() for step in t.own}
    later = []
    for _ in range(2):
        sampler, ledger = Fission(share=0.4).around(SetSampler()), Diary()
        sampler.restore(json.loads(json.dumps(state)))
        # Names begin anew with the collector: what the second life plays must not hide what the first recorded.
        ledger.records = {name: t for name, t in diary.records.items()}
        found, _ = await batches(ledger, sampler, 2)
        recoveries = [t for batch in found for group in batch if read_order(group.task) for t in group.trajectories]
        assert recoveries and all(t.forked_from in owners for t in recoveries[:4])
        later.append(numbers(found))
    assert later[0] == later[1]


async def diagnosed(diagnosis: Diagnosis, answer: Callable[[GenerateRequest], str]) -> str:
    _, parent = await a_mistake()
    async with RolloutEngine(World(), TokenPlayer(Engine(answer), Renderer()), supervision=QUICK) as play:
        return await diagnosis.of(parent, last_error(parent), play.group("g000001"))


async def test_the_policy_writes_the_diagnosis_and_the_template_stands_in() -> None:
    asked: list[str] = []

    def answer(request: GenerateRequest) -> str:
        asked.append(Renderer().decode(request.tokens))
        return " the word was unknown "

    assert await diagnosed(Diagnosis(writer=PolicyWriter()), answer) == "the word was unknown"
    assert "task t7" in asked[0] and "(refused: what?)" in asked[0] and "last call was refused: what?" in asked[0]
    template = "That call failed: what? Correct it and go on."
    assert await diagnosed(Diagnosis(writer=PolicyWriter()), lambda request: " ") == template
    assert await diagnosed(Diagnosis(), answer) == template and len(asked) == 1

    class Away:
        async def write(self, question: Message, member: int, rollout: object) -> str:
            raise InfrastructureFault("no answer")

        async def close(self) -> None: ...

    class Rambling(Away):
        async def write(self, question: Message, member: int, rollout: object) -> str:
            return "x" * 9999

    assert await diagnosed(Diagnosis(writer=Away()), answer) == template
    assert len(await diagnosed(Diagnosis(writer=Rambling()), answer)) == LONGEST


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"size": 0}, "size is 0"),
        ({"share": 1.0}, "share 1"),
        ({"diagnosis": "{what}"}, "diagnosis cannot be filled in"),
        ({"question": "{"}, "question cannot be filled in"),
        ({"written_by": "simulator"}, "simulator is not set"),
        ({"simulator": {"base_url": "http://localhost:1/v1", "model": "m"}}, 'written_by is "template"'),
        ({"written_by": "oracle"}, "template"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_host().create("strategies", "fission", options)


def test_a_recipe_names_who_writes() -> None:
    host = load_host()
    assert host.create("strategies", "fission").diagnosis.writer is None
    assert host.create("strategies", "fission", {"written_by": "policy"}).diagnosis.writer == PolicyWriter()
    server = {"base_url": "http://localhost:1/v1", "model": "m"}
    made = host.create("strategies", "fission", {"written_by": "simulator", "simulator": server, "size": 3})
    assert made.diagnosis.writer == ServerWriter(Simulator("http://localhost:1/v1", "m")) and made.size == 3
