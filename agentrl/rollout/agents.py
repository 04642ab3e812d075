"""Episodes that are played without a model: by an oracle, by chance, by nobody, by a person.

They go through the same engine, limits and records as a model's. Their steps hold no tokens: nothing trains on them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from agentrl.agents import Agent
from agentrl.errors import AgentRLError, EnvironmentFault
from agentrl.protocols import Environment
from agentrl.rollout.decisions import Decision, Seat
from agentrl.types import Finish, Observation, Step, Task, ToolSpec, token_ids

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AgentPlayer:
    """Implements `decisions.Player` with agents of `agentrl.agents`."""

    choose: Callable[[Environment, Task], Agent]
    "Makes the agent of an episode, after the reset."
    max_context: int = 1 << 30

    def sit(self, seat: Seat) -> AgentDecider:
        return AgentDecider(self, seat)

    async def forget(self, session: str) -> None:
        """Nothing is kept."""


class AgentDecider:
    """Implements `decisions.Decider` and `decisions.Insider`."""

    def __init__(self, player: AgentPlayer, seat: Seat) -> None:
        self._player = player
        self._seat = seat
        self._agent: Agent
        self._task: Task
        self._observation = Observation(())
        self._tools: Sequence[ToolSpec] = ()
        self._before: str | None = None
        self._index = 0

    def meet(self, environment: Environment, task: Task) -> None:
        self._task = task
        self._agent = self._blamed(lambda: self._player.choose(environment, task))

    def prepare(self, steps: Sequence[Step], observation: Observation, tools: Sequence[ToolSpec]) -> bool:
        self._observation, self._tools, self._index = observation, tools, len(steps)
        self._before = steps[-1].id if steps else None
        return True

    async def decide(self) -> Decision:
        chance = random.Random(self._seat.seed(self._index))
        action = self._blamed(lambda: self._agent.act(self._observation, self._tools, chance))
        nothing = token_ids([])
        return Decision(action, self._before, nothing, nothing, np.zeros(0, np.float32), nothing, Finish.STOP)

    def _blamed(self, work: Callable[[], T]) -> T:
        """An oracle is the environment's own code: what it raises is the environment's fault."""
        try:
            return work()
        except AgentRLError:
            raise
        except Exception as error:
            raise EnvironmentFault(
                f"who plays task {self._task.id!r} without a model raised {type(error).__name__}: {error}"
            ) from error
