"""n independent episodes of one task: the plain group.

Members are returned in order, whatever order they end in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentrl.protocols import Demands, Rollout
from agentrl.rollout.strategies.rounds import Budget, check_tokens, fill
from agentrl.types import Task, Trajectory


@dataclass(frozen=True, slots=True)
class Independent:
    """Every member is played from the start and knows nothing of the others.

    `tokens` bounds what is sampled for a group, whose size is then the most that it may have: for comparisons with
    strategies that branch at equal cost.
    """

    tokens: int | None = None

    def __post_init__(self) -> None:
        check_tokens(self.tokens, 1)

    @property
    def demands(self) -> Demands:
        return Demands()

    async def run(self, task: Task, size: int, rollout: Rollout) -> Sequence[Trajectory]:
        first = [] if self.tokens is None else [await rollout.episode(task, 0)]
        return await fill(task, first, Budget(size, self.tokens), rollout)
