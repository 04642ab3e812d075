"""What an agent that says nothing earns on a few training tasks: the floor that a reward is read against.

Measured once, before the first batch, and kept in the run's folder; an environment that fails here is not judged by it.
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import asdict, dataclass, replace
from itertools import islice

from agentrl.agents import NullAgent
from agentrl.errors import AgentRLError, StoreError
from agentrl.runs.blueprint import Blueprint
from agentrl.testing.episodes import Episode, play
from agentrl.types import Task

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
        played = await _played(blueprint, tasks)
    except AgentRLError:
        # The run meets the same fault in a moment, and says more of it.
        return None
    if not played:
        return None
    rewards, successes = [one.reward for one in played], [one.success for one in played]
    score = NullScore(len(played), sum(rewards) / len(played), sum(successes) / len(played))
    aside = path.with_suffix(".partial")
    aside.write_text(json.dumps(asdict(score)))
    aside.replace(path)
    return score


async def _played(blueprint: Blueprint, tasks: list[Task]) -> list[Episode]:
    """As many at once as the run may have environments."""
    places = asyncio.Semaphore(min(blueprint.config.rollout.environments, TASKS))

    async def one(task: Task) -> Episode:
        async with places:
            environment = blueprint.environment()
            try:
                return await play(environment, task, lambda _, __: NullAgent(), random.Random(task.seed))
            finally:
                await environment.close()

    played = await asyncio.gather(*map(one, tasks), return_exceptions=True)
    for failure in played:
        if isinstance(failure, BaseException):
            raise failure
    return [episode for episode in played if isinstance(episode, Episode)]
