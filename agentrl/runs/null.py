"""What an agent that says nothing earns on a few training tasks: the floor that a reward is read against.

Measured once, before the first batch, and kept in the run's folder; an environment that fails here is not judged by it.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass, replace
from itertools import islice

from agentrl.agents import null_agent
from agentrl.errors import AgentRLError, StoreError
from agentrl.files import write_whole
from agentrl.rollout.agents import AgentPlayer
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.runs.blueprint import Blueprint

TASKS = 8
"How many training tasks it is given, the first ones."


@dataclass(frozen=True, slots=True)
class NullScore:
    """Of an agent that says nothing."""

    tasks: int
    reward: float
    "Mean return."
    success: float
    "Share of the tasks."


async def null_score(blueprint: Blueprint, *, fresh: bool) -> NullScore | None:
    """The run's; played where the run is `fresh` and has none yet. None where it was not measured or failed."""
    path = blueprint.folder.null_score
    if path.exists():
        try:
            return NullScore(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise StoreError(f"{path} cannot be read: {error}. Delete it; the run goes on without.") from error
    if not fresh:
        return None
    tasks = [replace(task, split="train") for task in islice(blueprint.environment().tasks("train"), TASKS)]
    try:
        async with nobody(blueprint) as rollout:
            played = await asyncio.gather(*(rollout.episode(task, 0) for task in tasks))
    except AgentRLError:
        # The run meets the same fault in a moment, and says more of it.
        return None
    if not played or not all(trajectory.status.trains for trajectory in played):
        return None
    rewards, successes = [one.reward for one in played], [one.success for one in played]
    score = NullScore(len(played), sum(rewards) / len(played), sum(successes) / len(played))
    write_whole(path, json.dumps(asdict(score)).encode())
    return score


def nobody(blueprint: Blueprint) -> RolloutEngine:
    """Plays within the run's limits and says nothing; a fault is met once."""
    rollout = blueprint.config.rollout
    return RolloutEngine(
        blueprint.environment,
        AgentPlayer(null_agent),
        limits=EpisodeLimits(max_steps=rollout.max_steps, episode_deadline=rollout.episode_deadline),
        supervision=Supervision(environment_slots=rollout.environments, attempts=1),
    )
