"""A teacher that takes turns over: whose tokens are whose, what both see, and what is learned from each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes_rollout import Engine, Renderer, World
from forests import random_batch, row_by_row, tiny_llama
from loss_inputs import micro_batch, random_update

from agentrl.batch import UpdateColumns, build_table
from agentrl.errors import ConfigError
from agentrl.methods.distillation import dagger
from agentrl.protocols import ContextPolicy
from agentrl.rollout.context import Append, Window
from agentrl.rollout.episode import Episode, Setting
from agentrl.rollout.limits import EpisodeLimits
from agentrl.rollout.takeover import MixedPlayer, Takeover
from agentrl.rollout.tokens import TokenPlayer
from agentrl.store.records import decode, encode
from agentrl.training.learner import LearnerSettings, TorchLearner
from agentrl.types import Group, Source, Task, Trajectory

POLICY, TEACHER = "a", "b"


def player(takeover: Takeover, context: ContextPolicy | None = None, version: int = 0) -> MixedPlayer:
    engines = [Engine(lambda request, text=text: text) for text in (POLICY, TEACHER)]  # type: ignore[misc]
    engines[0].version = version
    policy, teacher = (TokenPlayer(engine, Renderer(), context or Append()) for engine in engines)
    return MixedPlayer(policy, teacher, takeover, lambda: engines[0].version)


async def play(who: MixedPlayer, member: int = 0, length: int = 6) -> Trajectory:
    setting = Setting(who, EpisodeLimits(max_tokens=20), seed=7)
    world = World()()
    return await Episode(setting, Task("t", "counter", data={"length": length}), group="g", member=member).play(world)


def taken(trajectory: Trajectory) -> list[bool]:
    return [step.source is Source.TEACHER for step in trajectory.steps]


@pytest.mark.parametrize("context", [Append(), Window(2)])
async def test_each_turn_is_one_engines_and_both_continue_the_same_tokens(context: ContextPolicy) -> None:
    who = player(Takeover(0.5, 1.0), context, version=3)
    trajectories = [await play(who, member) for member in range(6)]
    texts = {Source.POLICY: POLICY, Source.TEACHER: TEACHER}
    for trajectory in trajectories:
        for step in trajectory.steps:
            assert step.action.text == texts[step.source]
            # The staleness of a teacher's turn is that of the policy which met the state.
            assert set(step.versions.tolist()) == {3}
            np.testing.assert_array_equal(step.logprobs, np.linspace(-1, -0.5, 2, dtype=np.float32))
    engines = [seat.engine for seat in (who.policy, who.teacher)]  # type: ignore[attr-defined]
    asked = {request.tokens.tobytes() for engine in engines for request in engine.requests}
    for trajectory in trajectories:
        for step in trajectory.steps:
            prompt = trajectory.tokens_through(step)[: -len(step.tokens)]
            assert prompt.astype(np.int32).tobytes() in asked
    assert len(engines[0].requests) == sum(not took for t in trajectories for took in taken(t))
    assert len(engines[1].requests) == sum(took for t in trajectories for took in taken(t)) > 0
    await who.forget("g-0")
    assert [engine.forgotten for engine in engines] == [["g-0"], ["g-0"]]


async def test_who_takes_a_turn_depends_on_its_place_in_the_run_alone() -> None:
    takeover = Takeover(0.5, 1.0)
    first = [taken(await play(player(takeover), member)) for member in range(8)]
    assert first == [taken(await play(player(takeover), member)) for member in range(8)]
    assert len({tuple(turns) for turns in first}) > 4


async def test_the_share_of_the_teacher_follows_its_schedule() -> None:
    async def share(takeover: Takeover, version: int) -> float:
        turns = [took for member in range(40) for took in taken(await play(player(takeover, version=version), member))]
        return float(np.mean(turns))

    assert await share(Takeover(1.0, 1.0), 5) == 1.0
    assert await share(Takeover(0.0, 1.0), 0) == 0.0
    # 240 turns: three deviations of a fair coin are 0.097.
    assert await share(Takeover(0.8, 0.5), 0) == pytest.approx(0.8, abs=0.08)
    assert await share(Takeover(0.8, 0.5), 1) == pytest.approx(0.4, abs=0.1)
    assert Takeover(0.8, 0.5).probability(3) == pytest.approx(0.1)
    with pytest.raises(ConfigError, match=r"beta is 1\.5"):
        Takeover(1.5, 1.0)


async def test_whose_turn_it_was_survives_the_store_and_stands_in_the_table() -> None:
    trajectory = await play(player(Takeover(0.5, 1.0)), member=1)
    assert taken(decode(encode(trajectory))) == taken(trajectory)
    table = build_table([Group("g", trajectory.task, (trajectory,))])
    assert table.taught is not None and table.taught.tolist() == taken(trajectory)
    assert 0 < sum(taken(trajectory)) < 6


def taught_update(seed: int) -> UpdateColumns:
    update = random_update(seed)
    return replace(update, table=replace(update.table, taught=np.arange(len(update.table)) % 2 == 0))


@pytest.mark.parametrize("imitation", [0.0, 0.5])
def test_the_policys_turns_are_distilled_and_the_teachers_are_imitated(imitation: float) -> None:
    update = taught_update(1)
    objective = dagger(imitation=imitation, high=2.0, bound=100.0).objective()
    prepared = objective.prepare(update)
    logprobs = torch.from_numpy(update.logprobs.astype(np.float64)).requires_grad_()
    everything: Sequence[int] = np.unique(update.trajectory).tolist()
    _, inputs = micro_batch(update, prepared, everything, logprobs, torch.zeros(len(update)))
    objective(inputs).loss.sum().backward()
    assert logprobs.grad is not None and update.teacher_logprobs is not None
    ratio = np.exp(update.logprobs.astype(np.float64) - update.proximal_logprobs)
    own = -np.minimum(ratio, 2.0) * (update.teacher_logprobs - update.logprobs)
    wanted = np.where(update.taught, -imitation, own)
    np.testing.assert_allclose(logprobs.grad.numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_a_teachers_tokens_are_no_mismatch_between_sampler_and_learner() -> None:
    batch = random_batch(2)
    row = batch.columns.row
    taught = np.arange(len(batch.table)) % 2 == 0
    far = np.where(taught[row], np.float32(-50), batch.columns.behavior_logprobs)
    batch = replace(
        batch,
        table=replace(batch.table, taught=taught),
        columns=replace(batch.columns, behavior_logprobs=far.astype(np.float32)),
    )
    settings = LearnerSettings(learning_rate=1e-3)
    learner = TorchLearner(tiny_llama(), dagger().objective(), settings=settings, teacher=tiny_llama(seed=4))
    report = learner.update(batch)
    assert report.updated and report.metrics["mismatch_max"] < 40


def test_turns_that_a_teacher_took_are_learned_without_any_advantage() -> None:
    batch = random_batch(3)
    batch = replace(
        batch,
        advantage=np.zeros_like(batch.advantage),
        table=replace(batch.table, taught=np.ones(len(batch.table), np.bool_)),
    )
    # The teacher is the policy itself, so that nothing but imitation moves it.
    learner = TorchLearner(
        tiny_llama(), dagger().objective(), settings=LearnerSettings(learning_rate=1e-3), teacher=tiny_llama()
    )
    assert learner.update(batch).updated
    with torch.no_grad():
        before, after = (row_by_row(model, batch)[0] for model in (tiny_llama(), learner.model))
    assert float((after - before).mean()) > 0
    silent = TorchLearner(
        tiny_llama(),
        dagger(imitation=0.0).objective(),
        settings=LearnerSettings(learning_rate=1e-3),
        teacher=tiny_llama(),
    )
    assert not silent.update(batch).updated
