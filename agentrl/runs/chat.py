"""Evaluation of a model behind an API: no tokens, no learner, no ledger; the recipe's tasks and limits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from agentrl.config import check_parts
from agentrl.evaluation.chat import ChatLimits, ChatRollout
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
    async def play(temperature: float) -> AsyncIterator[ChatRollout]:
        limits = ChatLimits(
            max_steps=rollout.max_steps,
            max_tokens=rollout.max_tokens,
            temperature=temperature,
            concurrency=min(rollout.environments, rollout.concurrency),
            attempts=rollout.retries + 1,
            episode_deadline=rollout.episode_deadline,
        )
        yield ChatRollout(
            blueprint.environment,
            engine,
            limits=limits,
            context=blueprint.context(),
            seed=config.seed + EVALUATION_SEED,
        )

    try:
        yield Measure(place, play)
    finally:
        await engine.close()
