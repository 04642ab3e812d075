"""n independent episodes of one task: the plain group.

Members are returned in order, whatever order they end in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agentrl.protocols import Rollout
from agentrl.types import Task, Trajectory


class Independent:
    """Every member is played from the start and knows nothing of the others."""

    async def run(self, task: Task, size: int, rollout: Rollout) -> Sequence[Trajectory]:
        return await asyncio.gather(*(rollout.episode(task, member) for member in range(size)))
