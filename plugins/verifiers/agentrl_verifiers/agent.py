"""The environment `verifiers_rollouts`, as the driver sees it: an agent whose loop is a rollout of verifiers.

The rollout runs in the virtual environment of verifiers; this process imports nothing of theirs.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import agentrl

GRACE = 10.0
"Seconds that a rollout has to end by itself once the policy answers it no more."


class Agents:
    """Makes `VerifiersRollouts`; its options are those of the world in the virtual environment."""

    def __init__(self, theirs: Callable[..., Any]) -> None:
        self._theirs = theirs
        self.__signature__ = inspect.signature(theirs)

    def __call__(self, **options: Any) -> VerifiersRollouts:
        return VerifiersRollouts(partial(self._theirs, **options))


class VerifiersRollouts(agentrl.AgentEnv):
    """One rollout of verifiers an episode, in a process of its own."""

    patience = 300.0

    def __init__(self, theirs: Callable[[], Any]) -> None:
        """theirs: makes a world that plays a task once it is told where the policy is."""
        super().__init__()
        self._theirs = theirs
        # Made here, so that an option which it cannot take is said here.
        self._first = theirs()

    def tasks(self, split: str) -> Iterable[agentrl.Task]:
        found: Iterable[agentrl.Task] = self._first.tasks(split)
        return found

    async def play(self, task: agentrl.Task, base_url: str) -> agentrl.Ending:
        world = self._theirs()
        playing = asyncio.ensure_future(_play(world, task, base_url))
        try:
            return await asyncio.shield(playing)
        except asyncio.CancelledError:
            # The policy answers no more, so their rollout comes to its end and clears up behind itself.
            await asyncio.wait({playing}, timeout=GRACE)
            raise
        finally:
            playing.cancel()
            await asyncio.wait({playing})
            await world.close()


async def _play(world: Any, task: agentrl.Task, base_url: str) -> agentrl.Ending:
    await world.reset(task)
    ended: agentrl.StepResult = await world.step(agentrl.say(base_url))
    return agentrl.Ending(ended.reward, scores=ended.scores)
