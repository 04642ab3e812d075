"""Groups that learn to recover: where a call failed, the episode is gone on with several times over, the failure told.

The diagnosis is part of what the policy reads and trains with, as a tool's own message would be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from agentrl.errors import ConfigError
from agentrl.protocols import Demands, Rollout
from agentrl.rollout.strategies.rounds import Budget, Place, check_tokens, fill, play_roots
from agentrl.types import Task, Trajectory


@dataclass(frozen=True, slots=True)
class Recovery:
    """An error turn becomes a prompt of its own, from which `attempts` recoveries are sampled, in the same group.

    Half of a group is played from the start; the steps of it that were refused (`Step.error`) are gone on from behind
    the refusal, the last ones first, with `diagnosis` added to what the environment said (`{error}` is filled in).
    Without errors the rest is played from the start. The strategy `fission` is the paper's: a pool across batches, and
    a model that writes the diagnosis. The method `fission` compares recoveries of one error with one another. `tokens`
    bounds what is sampled for a group.
    """

    attempts: int = 2
    diagnosis: str = "That call failed: {error} Correct it and go on."
    tokens: int | None = None

    def __post_init__(self) -> None:
        check_tokens(self.tokens, 2)
        if self.attempts < 2:
            raise ConfigError(f"attempts is {self.attempts}; recoveries are compared, so at least 2 are needed.")
        try:
            self.diagnosis.format(error="")
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigError(
                f"diagnosis cannot be filled in ({type(error).__name__}: {error}); it may name {{error}}, and other "
                "braces are doubled."
            ) from None

    @property
    def demands(self) -> Demands:
        return Demands(group=2 * self.attempts, forks=True)

    async def run(self, task: Task, size: int, rollout: Rollout) -> Sequence[Trajectory]:
        budget = Budget(size, self.tokens)
        base = await play_roots(task, 0, size - size // 2, rollout)
        wanted = [place for place in _errors(base) for _ in range(self.attempts)]
        places = budget.affordable(base, wanted)
        whole = len(places) - len(places) % self.attempts
        recoveries = (
            rollout.fork(parent, at, len(base) + number, told=self._told(parent, at))
            for number, (parent, at) in enumerate(places[:whole])
        )
        return await fill(task, [*base, *await asyncio.gather(*recoveries)], budget, rollout)

    def _told(self, parent: Trajectory, at: int) -> str:
        return self.diagnosis.format(error=parent.steps[at - 1].error)


def _errors(members: Sequence[Trajectory]) -> list[Place]:
    """The steps that follow a refused one, the latest first."""
    found = [
        (trajectory, step.index)
        for trajectory in members
        if trajectory.status.trains
        for before, step in zip(trajectory.steps, trajectory.steps[1:], strict=False)
        if before.error
    ]
    return sorted(found, key=lambda place: -place[1])
