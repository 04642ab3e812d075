"""Our half of `trl_comparison.py`: a training run without its recipe, its report and its checkpoints.

It holds all else that a run does: publish, episodes with their ledger, credit, update, in a run's threads and with its
handling of memory.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import torch

from agentrl import models
from agentrl.engines.transformers import TransformersEngine
from agentrl.engines.vllm_server import VllmEngine
from agentrl.methods.groups import grpo
from agentrl.protocols import Engine, LearnerSide, WeightPublisher
from agentrl.rendering import make_renderer
from agentrl.rollout.accounting import BatchShape
from agentrl.rollout.collector import Collector
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.rollout.rewarding import RewardTerm
from agentrl.rollout.strategies.independent import Independent
from agentrl.rollout.tokens import TokenPlayer
from agentrl.store.ledger import Ledger
from agentrl.tasks.samplers import SequentialSampler
from agentrl.training.learner import LearnerSettings, LoraSettings, TorchLearner
from agentrl.training.memory import retain
from support.one_call import (
    ALPHA,
    LEARNING_RATE,
    NEW_TOKENS,
    PROMPTS,
    RANK,
    SAMPLES,
    Likeness,
    environment,
)
from support.turns import Clock

MAX_CONTEXT = 512


class Ours:
    """What an update goes through."""

    def __init__(self, learner: TorchLearner, publisher: WeightPublisher, collector: Collector) -> None:
        self._learner, self._publisher, self._collector = learner, publisher, collector
        self._method = grpo()
        self._thread = ThreadPoolExecutor(1, "learner")

    async def update(self, clock: Clock) -> None:
        version = self._learner.version
        await self._publisher.publish(version, self._learner.named_tensors())
        groups = await self._collector.next_batch(version)
        clock.sampled(sum(len(step.tokens) for group in groups for step in group.steps()))
        loop = asyncio.get_running_loop()
        report = await loop.run_in_executor(self._thread, self._learner.update, self._method.batch(groups))
        if not report.updated:
            raise SystemExit(f"no update was made: {report.reason}")


@asynccontextmanager
async def opened(job: dict[str, Any]) -> AsyncIterator[Ours]:
    """A side of ours, with an engine in process or with a server."""
    model, dtype = Path(job["model"]), job["dtype"]
    learner = TorchLearner(
        models.load_model(model, dtype=dtype),
        grpo().objective(),
        settings=LearnerSettings(learning_rate=LEARNING_RATE, micro_batch_tokens=4096, lora=LoraSettings(RANK, ALPHA)),
        source=model,
    )
    renderer = make_renderer(models.load_tokenizer(model))
    most = PROMPTS * SAMPLES
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engine: Engine
        if job["engine"] == "vllm":
            engine = VllmEngine(model, log_folder=folder, dtype=dtype, max_context=MAX_CONTEXT, max_sequences=most)
        else:
            engine = TransformersEngine(learner.model, max_context=MAX_CONTEXT, max_batch=most)
        stack.push_async_callback(engine.close)
        await engine.start()
        publisher = engine.publisher(LearnerSide(learner.model, learner.score, folder))
        rollout = await stack.enter_async_context(
            RolloutEngine(
                environment,
                TokenPlayer(engine, renderer),
                limits=EpisodeLimits(max_steps=1, max_tokens=NEW_TOKENS, max_context=MAX_CONTEXT),
                supervision=Supervision(environment_slots=most, engine_slots=most),
                rewards=[RewardTerm("likeness", Likeness(renderer))],
            )
        )
        ledger = stack.enter_context(Ledger(folder / "run"))
        sampler = SequentialSampler(lambda: environment().tasks("train"))
        shape = BatchShape(groups=PROMPTS, group_size=SAMPLES)
        collector = await stack.enter_async_context(Collector(rollout, Independent(), sampler, ledger, shape))
        yield Ours(learner, publisher, collector)


async def main(job: dict[str, Any]) -> None:
    retain()
    torch.set_num_threads(job["threads"])
    clock = Clock()
    async with opened(job) as ours:
        clock.ready()
        # In a thread: a server is watched while the other side works.
        while await asyncio.to_thread(clock.begin):
            await ours.update(clock)
            clock.end()


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
