"""A person as the policy of an evaluation: sees what a model would see, and types its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from agentrl.cli.play import HELP, next_action, show, show_tools
from agentrl.errors import ConfigError
from agentrl.rollout.decisions import Decider, Decision, Player, Seat
from agentrl.types import JSON, Finish, Observation, Step, ToolSpec, token_ids

PATIENCE = 86_400.0
"Seconds that a person may take over an episode."


@dataclass(frozen=True, slots=True)
class HumanPolicy:
    """Implements `runs.policies.Policy` and `decisions.Player`. One episode at a time."""

    reader: TextIO
    writer: TextIO
    max_tokens: int | None = None
    max_context: int = 1 << 30

    @property
    def identity(self) -> Mapping[str, JSON]:
        return {"kind": "human"}

    async def named(self) -> HumanPolicy:
        return self

    async def open(self, stack: AsyncExitStack, folder: Path) -> Player:
        return self

    def sit(self, seat: Seat) -> Decider:
        return HumanDecider(self, seat)

    async def forget(self, session: str) -> None:
        """Nothing is kept."""


class HumanDecider:
    """Implements `decisions.Decider`."""

    def __init__(self, policy: HumanPolicy, seat: Seat) -> None:
        self._policy = policy
        self._seat = seat
        self._tools: Sequence[ToolSpec] = ()
        self._before: str | None = None

    def prepare(self, steps: Sequence[Step], observation: Observation, tools: Sequence[ToolSpec]) -> bool:
        self._before = steps[-1].id if steps else None
        if not steps:
            self._say(f"\ntask {self._seat.task}")
        show(observation, self._say)
        if tuple(tools) != tuple(self._tools):
            show_tools(tools, self._say)
            self._say(HELP)
        self._tools = tools
        return True

    async def decide(self) -> Decision:
        """Raises `ConfigError` where the person leaves, which ends the evaluation and keeps what was played."""
        action = await next_action(self._tools, self._policy.reader, self._policy.writer)
        if action is None:
            raise ConfigError(
                f"you left at task {self._seat.task!r}. What was finished is kept; the same command goes on."
            )
        nothing = token_ids([])
        return Decision(action, self._before, nothing, nothing, np.zeros(0, np.float32), nothing, Finish.STOP)

    def _say(self, text: str) -> None:
        print(text, file=self._policy.writer, flush=True)
