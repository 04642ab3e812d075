"""Evaluation of a model behind an API: no tokens, no learner, no ledger; the recipe's tasks and limits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from agentrl.config import check_parts
from agentrl.remote.pool import WORKERS
from agentrl.rollout.chat import ChatPlayer
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.runs.assembly import EVALUATION_SEED
from agentrl.runs.blueprint import Blueprint
from agentrl.runs.folder import RunFolder
from agentrl.runs.measure import Measure


@asynccontextmanager
async def open_chat(blueprint: Blueprint) -> AsyncIterator[Measure]:
    """Results lie in the run's folder under `api/`, apart for every server and model."""
    config, rollout = blueprint.config, blueprint.config.rollout
    check_parts(config, blueprint.host)
    engine = blueprint.part("engines", config.engine, "[engine]", {"max_context": rollout.max_context})
    name = hashlib.sha256(json.dumps(config.engine.options, sort_keys=True).encode()).hexdigest()[:12]
    place = replace(blueprint, folder=RunFolder(blueprint.folder.path / "api" / name))

    @asynccontextmanager
    async def play(temperature: float) -> AsyncIterator[RolloutEngine]:
        limits = EpisodeLimits(
            max_steps=rollout.max_steps,
            max_tokens=rollout.max_tokens,
            temperature=temperature,
            episode_deadline=rollout.episode_deadline,
        )
        # A failing server is told by the faults of the result; it stops no run.
        supervision = Supervision(
            environment_slots=min(rollout.environments, rollout.concurrency),
            engine_slots=rollout.concurrency,
            attempts=rollout.retries + 1,
            failure_bound=1.0,
        )
        player = ChatPlayer(engine, blueprint.context())
        seed = config.seed + EVALUATION_SEED
        yield RolloutEngine(blueprint.environment, player, limits=limits, supervision=supervision, seed=seed)

    try:
        yield Measure(place, play)
    finally:
        WORKERS.close()
        await engine.close()
