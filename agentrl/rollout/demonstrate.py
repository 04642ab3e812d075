"""Plays given actions as if the policy had chosen them: oracles and warm starts.

The tokens are those with which the policy would express each action, and they must read back as that action.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from agentrl.errors import InvalidDataError
from agentrl.protocols import ContextPolicy, Environment, GenerateRequest, Renderer
from agentrl.rollout.context import Append
from agentrl.rollout.episode import Episode, Setting
from agentrl.rollout.forking import Start
from agentrl.rollout.limits import EpisodeLimits
from agentrl.rollout.tokens import TokenPlayer, check_expressed
from agentrl.types import Action, Completion, Finish, Source, Task, ToolSpec, Trajectory, token_ids


async def play(
    environment: Environment,
    renderer: Renderer,
    task: Task,
    actions: Iterable[Action],
    *,
    id: str,
    context: ContextPolicy | None = None,
    limits: EpisodeLimits | None = None,
) -> Trajectory:
    """The trajectory of `actions`, with log-probabilities 0 and policy version 0.

    `environment` is reset here and stays the caller's to close. `actions` is read one by one, after the reset, so
    a generator may look at the world; where it ends before the episode does, the episode is truncated. Raises
    `RenderingError` where the renderer does not read back what it wrote, and what the environment raises.
    """
    pen = _Pen(renderer)
    episode = Episode(
        Setting(TokenPlayer(pen, renderer, context or Append()), limits or EpisodeLimits()),
        task,
        group=id,
        member=0,
        start=Start(source=Source.EXPERT),
    )
    episode.id = id
    await episode.start(environment)
    for action in actions:
        pen.take(action, environment.tools())
        taken = len(episode.steps)
        await episode.advance()
        if len(episode.steps) > taken:
            check_expressed(renderer, action, episode.steps[-1].action)
        if episode.status is not None:
            return episode.record(episode.status)
    if not episode.steps:
        raise InvalidDataError(f"no action was given for task {task.id!r}; a demonstration has at least one.")
    return episode.record(await episode.cut())


class _Pen:
    """Writes the action at hand where an engine would sample."""

    max_context = 1 << 30
    version = 0

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._tokens = token_ids([])

    def take(self, action: Action, tools: Sequence[ToolSpec]) -> None:
        self._tokens = token_ids(self._renderer.action_tokens(action, tools))

    async def generate(self, request: GenerateRequest) -> Completion:
        tokens = self._tokens
        return Completion(tokens, np.zeros(len(tokens), np.float32), np.zeros(len(tokens), np.int32), Finish.STOP)

    async def forget(self, session: str) -> None: ...
