"""Staleness 0 through the asynchronous path is a plain synchronous run, number for number; above 0 its bound holds."""

import asyncio

import numpy as np
import pytest
from live_runs import LAMPS, RECIPE, final_weights, make_bench, rows

from agentrl.batch import TrainingBatch
from agentrl.config import load_config
from agentrl.environment import adapt
from agentrl.method import Method
from agentrl.plugins import load_host
from agentrl.protocols import GenerateRequest
from agentrl.rendering import make_renderer
from agentrl.rollout.decisions import sampling_seed
from agentrl.store.records import read_trajectories
from agentrl.tasks.samplers import SequentialSampler
from agentrl.training.metrics import read_metrics
from agentrl.types import Group, SamplingParams, Status, Step, Trajectory, token_ids

pytestmark = pytest.mark.slow

BATCHES, GROUPS, SIZE = 3, 2, 4
EXACT = ("rollout.concurrency=1", "engine.cache_tokens=0", f"training.batches={BATCHES}", "evaluation.tasks=0")


async def play(engine, renderer, world, task, group, member, seed, max_tokens) -> Trajectory:
    """One episode, step by step: prompt, sample, act."""
    observation = await world.reset(task)
    tools, steps, tokens = world.tools(), [], token_ids([])
    while True:
        index = len(steps)
        delta = renderer.extend(tokens, observation.messages, tools) if steps else None
        if delta is None:
            assert not steps, "the word renderer always extends"
            delta = renderer.render(observation.messages, tools)
        prompt = np.concatenate([tokens, delta]).astype(np.int32)
        sampling = SamplingParams(
            max_tokens, seed=sampling_seed(seed, group, task.id, member, index), stop_token_ids=renderer.stop_token_ids
        )
        sampled = await engine.generate(GenerateRequest(prompt, sampling, f"{group}-{member}"))
        action = renderer.parse(sampled.tokens, tools)
        result = await world.step(action)
        name = f"{group}-{member}.{index}"
        before = steps[-1].id if steps else None
        steps.append(
            Step(
                name, index, before, before, token_ids(delta), sampled.tokens, sampled.logprobs, sampled.versions,
                action, observation, result.reward, dict(result.scores), result.terminated, result.truncated,
                result.policy_error,
            )
        )  # fmt: skip
        tokens, observation = np.concatenate([prompt, sampled.tokens]), result.observation
        if result.terminated or result.truncated:
            status = Status.OK if result.terminated else Status.TRUNCATED
            return Trajectory(f"{group}-{member}", task, group, tuple(steps), status)


async def plain_run(config, host, start) -> tuple[list[TrainingBatch], list[float], dict[str, np.ndarray]]:
    """The method without collector, ledger, retries or threads: sample a batch, credit it, update, and again."""
    from agentrl.engines.transformers import TransformersEngine
    from agentrl.models import load_model, load_tokenizer
    from agentrl.training.learner import LearnerSettings, TorchLearner

    method: Method = host.create("methods", config.method.name, config.method.options)
    settings = LearnerSettings(
        learning_rate=config.training.learning_rate, micro_batch_tokens=config.training.micro_batch_tokens
    )
    learner = TorchLearner(load_model(start, dtype="float32", device="cpu"), method.objective(), settings=settings)
    renderer = make_renderer(load_tokenizer(start))
    engine = TransformersEngine(learner.model, max_context=config.rollout.max_context, max_batch=1, cache_tokens=0)
    await engine.start()
    world = adapt(host.create("environments", "lamps", {}))
    sampler = SequentialSampler(lambda: world.tasks("train"), seed=config.seed)
    batches, losses = [], []
    for batch in range(BATCHES):
        engine.set_version(learner.version)
        groups = []
        for place, task in enumerate(sampler.next(GROUPS)):
            name = f"g{batch * GROUPS + place:06d}"
            members = [
                await play(engine, renderer, world, task, name, member, config.seed, config.rollout.max_tokens)
                for member in range(SIZE)
            ]
            groups.append(Group(name, task, tuple(members)))
        batches.append(method.batch(groups))
        losses.append(learner.update(batches[-1]).metrics.get("loss", 0.0))
    weights = {name: tensor.detach().numpy().copy() for name, tensor in learner.named_tensors().items()}
    await engine.close()
    return batches, losses, weights


def test_staleness_0_equals_a_plain_synchronous_loop_number_for_number(tmp_path):
    import torch

    bench = make_bench(tmp_path / "bench")
    ended = bench.train(*EXACT)
    assert ended.code == 0, ended.err
    run = bench.run_folder
    config = load_config(run / "config.toml")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        host = load_host([str(bench.plugin)])
        batches, losses, weights = asyncio.run(plain_run(config, host, run / "warm_start" / "model"))
    finally:
        torch.set_num_threads(threads)
    method: Method = host.create("methods", config.method.name, config.method.options)
    stored = {t.id: t for t in read_trajectories(run / "payloads.bin")}
    lines = read_metrics(run / "metrics.jsonl")
    for number, plain in enumerate(batches):
        trained = rows(run, f"SELECT id, grp FROM trajectories WHERE batch = {number + 1} ORDER BY id")
        names = sorted({group for _, group in trained})
        members = {group: tuple(stored[name] for name, of in trained if of == group) for group in names}
        looped = method.batch([Group(group, members[group][0].task, members[group]) for group in names])
        for column in ("reward", "length", "terminated", "truncated", "anchor", "trajectory", "group"):
            assert np.array_equal(getattr(looped.table, column), getattr(plain.table, column)), column
        assert np.array_equal(looped.columns.token, plain.columns.token)
        assert np.array_equal(looped.columns.behavior_logprobs, plain.columns.behavior_logprobs)
        assert np.array_equal(looped.advantage, plain.advantage)
        assert np.array_equal(looped.scale, plain.scale)
        per_trajectory = np.bincount(plain.table.trajectory, plain.table.reward)
        assert lines[number]["reward"] == pytest.approx(per_trajectory.mean(), abs=1e-12)
        assert lines[number].get("update_loss", 0.0) == losses[number]
    assert any(loss != 0 for loss in losses)
    looped_weights = final_weights(run)
    assert looped_weights.keys() == weights.keys()
    assert all(np.array_equal(looped_weights[name], weights[name]) for name in weights)


@pytest.mark.parametrize(("bound", "minibatches"), [(1, 1), (2, 2)])
def test_an_asynchronous_run_ends_within_its_bound(tmp_path, bound, minibatches):
    """With episodes that last unevenly, so that some groups come late."""
    uneven = LAMPS.replace(
        "        self.given.append(color)\n",
        "        self.given.append(color)\n        await asyncio.sleep(0.003 * (len(color) % 3))\n",
    )
    uneven = uneven.replace("    def switch(", "    async def switch(").replace(
        "import random\n", "import asyncio\nimport random\n"
    )
    bench = make_bench(tmp_path / "bench", RECIPE, uneven)
    ended = bench.train(
        "warm_start.demonstrations=100",
        f"rollout.max_staleness={bound}",
        f"training.minibatches={minibatches}",
        "training.batches=8",
        "training.checkpoint_every=3",
        "evaluation.tasks=2",
    )
    assert ended.code == 0, ended.err
    lines = read_metrics(bench.run_folder / "metrics.jsonl")
    assert [line["batch"] for line in lines] == list(range(1, 9))
    ages = [line["staleness_max"] for line in lines]
    assert max(ages) <= bound
    assert max(ages) > 0, "nothing was ever sampled ahead: this run was not asynchronous"
