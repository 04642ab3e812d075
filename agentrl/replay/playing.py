"""Plays recorded actions through the rollout engine, so that limits, grading and blame are those of any episode.

The recorded actions are all that is decided; an episode that asks for more of them ends where they end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from agentrl.protocols import Environment
from agentrl.replay.script import Script, script_of
from agentrl.rollout.decisions import Decision, Seat
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.types import Action, Finish, Observation, Step, ToolSpec, Trajectory, token_ids

ALONE = Supervision(environment_slots=1, attempts=1, failure_bound=1.0)
"One episode at a time; a fault is an answer here and is not tried again."
_NOTHING = token_ids([])


@dataclass(frozen=True, slots=True)
class RecordedPlayer:
    """Implements `decisions.Player` with actions that were taken before, and no tokens."""

    actions: Sequence[Action]

    @property
    def max_context(self) -> int:
        return 1 << 30

    def sit(self, seat: Seat) -> RecordedDecider:
        return RecordedDecider(self.actions)

    async def forget(self, session: str) -> None:
        """Nothing is kept."""


class RecordedDecider:
    """Implements `decisions.Decider`."""

    def __init__(self, actions: Sequence[Action]) -> None:
        self._actions = actions
        self._index = 0

    def prepare(self, steps: Sequence[Step], observation: Observation, tools: Sequence[ToolSpec]) -> bool:
        self._index = len(steps)
        return self._index < len(self._actions)

    async def decide(self) -> Decision:
        context = None if self._index == 0 else ""
        action = self._actions[self._index]
        return Decision(action, context, _NOTHING, _NOTHING, np.zeros(0, np.float32), _NOTHING, Finish.STOP)


async def play_script(environment: Callable[[], Environment], script: Script, limits: EpisodeLimits) -> Trajectory:
    """The script's actions in a fresh environment; what happens there is in the record, faults too."""
    async with RolloutEngine(environment, RecordedPlayer(script.actions), limits=limits, supervision=ALONE) as engine:
        return await engine.episode(script.task, 0)


async def replayed(environment: Callable[[], Environment], script: Script, limits: EpisodeLimits) -> Script:
    """The same as a script."""
    return script_of(await play_script(environment, script, limits))
