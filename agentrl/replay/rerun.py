"""Recorded actions, taken again in a fresh environment: the same episode, or the first thing that is not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from agentrl.divergence import Divergence
from agentrl.replay.playing import replayed
from agentrl.replay.script import Script, first_divergence, script_of
from agentrl.replay.source import Recorded
from agentrl.types import Trajectory

AT_ONCE = 8
"Environments."


@dataclass(frozen=True, slots=True)
class Rerun:
    """One episode beside its repetition."""

    episode: str
    recorded: Script | None = None
    now: Script | None = None
    divergence: Divergence | None = None
    error: str = ""
    "Why there is nothing to compare: then the others are None."

    @property
    def same(self) -> bool:
        return self.now is not None and self.divergence is None


async def rerun(recorded: Recorded, names: Sequence[str]) -> list[Rerun]:
    """In the order of `names`; an environment that fails is an answer and not an error."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> Rerun:
        async with places:
            return await rerun_one(recorded, recorded.reader.trajectory(name))

    return list(await asyncio.gather(*map(one, names)))


async def rerun_one(recorded: Recorded, trajectory: Trajectory) -> Rerun:
    if not trajectory.steps:
        why = f"it took no step ({trajectory.status.value}: {trajectory.error or 'no reason is known'})"
        return Rerun(trajectory.id, error=why)
    script = script_of(trajectory)
    now = await replayed(recorded.environment, script, recorded.limits)
    return Rerun(trajectory.id, script, now, first_divergence(script, now))
