"""Every method in the box trains on real keydoor trajectories: finite weights that changed, nothing refused."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from keydoor.env import KeyDoor

from agentrl.batch import TrainingBatch, build_batch
from agentrl.environment import adapt
from agentrl.errors import ConfigError
from agentrl.method import Method
from agentrl.models import load_model, load_tokenizer
from agentrl.plugins import Host, load_host
from agentrl.protocols import Environment
from agentrl.rendering import make_renderer
from agentrl.rollout.demonstrate import play
from agentrl.runs.warm_start import vocabulary
from agentrl.tiny import make_tiny
from agentrl.training.critic import TorchCritic
from agentrl.training.learner import LearnerSettings, TorchLearner
from agentrl.training.logprobs import Reading, tree_model
from agentrl.training.packing import pack
from agentrl.training.survey import read
from agentrl.types import Group

HOST: Host = load_host()
NAMES = sorted(entry.name for entry in HOST.entries("methods"))
OPTIONS: dict[str, dict[str, Any]] = {
    "custom": {"credit": [{"name": "episode"}, {"name": "anchor", "weight": 0.5}]},
    "normalised_terms": {"weights": {"success": 1.0}},
    # An untrained model is nowhere as sure as the default asks.
    "gtpo": {"limit": 10.0},
}


def environment() -> Environment:
    return adapt(KeyDoor(size=3, horizon=10, skill=0.6))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Group]]:
    """A tiny model, and groups of mixed success with its own log-probabilities."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    make_tiny(folder, asyncio.run(vocabulary(environment, seed=0)), hidden=32, layers=1, heads=1, context=256, seed=0)
    groups = asyncio.run(demonstrations(make_renderer(load_tokenizer(folder), "auto")))
    model = load_model(folder, dtype="float32", device="cpu")
    batch = build_batch(groups)
    micros = pack(batch, np.unique(batch.table.trajectory).astype(np.int64), 4096)
    logprobs = read(tree_model(model), batch, micros, Reading(1.0))[0]
    return folder, with_logprobs(groups, batch, logprobs)


async def demonstrations(renderer: Any) -> list[Group]:
    groups = []
    tasks = iter(environment().tasks("train"))
    for number in range(4):
        task, members = next(tasks), []
        for member in range(4):
            world = environment()
            author = world.author  # type: ignore[attr-defined]
            dice = random.Random(10 * number + member)
            actions = author.demonstrate(task, dice) if member % 2 else author.oracle(task)
            members.append(await play(world, renderer, task, actions, id=f"g{number}-{member}"))
            await world.close()
        # A branch that left the first member after two steps and got nowhere.
        left = members[0].steps[1]
        members.append(replace(members[0], id=f"g{number}-4", steps=members[0].steps[:2], forked_from=left.id))
        groups.append(Group(f"g{number}", task, tuple(members)))
    return groups


def with_logprobs(groups: list[Group], batch: TrainingBatch, logprobs: Any) -> list[Group]:
    """The sampler's numbers, a little off the learner's as those of an older policy are."""
    noise = np.random.default_rng(0).normal(0, 0.1, len(logprobs)).astype(np.float32)
    behavior = np.minimum(logprobs + noise, 0)
    row, found = 0, []
    known: dict[str, Any] = {}
    for group in groups:
        members = []
        for trajectory in group.trajectories:
            for step in trajectory.steps:
                known.setdefault(step.id, replace(step, logprobs=behavior[batch.columns.row == row]))
                row += 1
            members.append(replace(trajectory, steps=tuple(known[step.id] for step in trajectory.steps)))
        found.append(replace(group, trajectories=tuple(members)))
    return found


def told(groups: list[Group]) -> dict[str, Any]:
    """Every first prompt with a few of its own words said again, as a hint would be."""
    steps = (step for group in groups for trajectory in group.trajectories for step in trajectory.steps)
    return {s.id: np.concatenate([s.prompt[:-1], s.prompt[1:4], s.prompt[-1:]]) for s in steps if s.context is None}


def test_the_groups_have_signal(played: tuple[Path, list[Group]]) -> None:
    returns = [[t.reward for t in group.trajectories] for group in played[1]]
    assert sum(len(set(found)) > 1 for found in returns) >= 2


@pytest.mark.parametrize("name", NAMES)
def test_two_updates(name: str, played: tuple[Path, list[Group]]) -> None:
    folder, groups = played
    method: Method = HOST.create("methods", name, OPTIONS.get(name, {}), given={"host": HOST})
    method.check(5)
    model = load_model(folder, dtype="float32", device="cpu")
    objective = method.objective()
    teacher = None
    if objective.needs_teacher:
        teacher = load_model(folder, dtype="float32", device="cpu")
        with torch.no_grad():
            for parameter in teacher.parameters():
                parameter.mul_(1.5)
    settings = LearnerSettings(learning_rate=1e-3, micro_batch_tokens=512, minibatches=2)
    learner = TorchLearner(model, objective, settings=settings, teacher=teacher)
    critic = None
    if method.critic is not None:
        critic = TorchCritic(load_model(folder, dtype="float32", device="cpu"), method.critic)
    before = {key: value.clone() for key, value in learner.named_tensors().items()}
    updates = 0.0
    for _ in range(2):
        batch = method.columns(groups, told(groups) if method.hint else None)
        if critic is not None:
            batch = replace(batch, table=replace(batch.table, value=critic.values(batch)))
        batch = method.assign(batch)
        report = learner.update(batch)
        updates += report.metrics.get("updates", 0.0)
        assert all(np.isfinite(value) for value in report.metrics.values()), report.metrics
        if critic is not None:
            assert np.isfinite(critic.fit(batch, method.targets(batch.table))["critic_loss"])
    after = learner.named_tensors()
    assert updates > 0, report.reason
    assert all(bool(torch.isfinite(value).all()) for value in after.values())
    assert any(not torch.equal(before[key], after[key]) for key in before)
    learner.restore_objective(learner.objective_state())
    method.restore(method.state())


def test_a_group_of_one_is_refused_by_what_compares() -> None:
    with pytest.raises(ConfigError, match="compares at least 2"):
        HOST.create("methods", "grpo").check(1)
