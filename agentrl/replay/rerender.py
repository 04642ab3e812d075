"""Recorded messages, rendered again: the proof that the tokens of an episode are what its renderer writes.

Every step is checked against the recorded tokens before it, so that one difference does not make the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agentrl.errors import ConfigError
from agentrl.protocols import ContextPolicy, Environment, GenerateRequest, Renderer
from agentrl.replay.source import Recorded
from agentrl.rollout.decisions import Decision, Seat
from agentrl.rollout.guard import GuardedWorld
from agentrl.rollout.limits import EpisodeLimits
from agentrl.rollout.tokens import TokenPlayer
from agentrl.types import Completion, Step, Task, TokenIds, ToolSpec, Trajectory

AROUND = 8
"Tokens that are shown before and after the first that differs."


@dataclass(frozen=True, slots=True)
class Difference:
    """The first token that is not as it was."""

    step: int
    what: str
    """prompt; guidance, which is read and not trained with; context, where it extends and began anew, or the other way
    round; action, where the sampled tokens read otherwise."""
    position: int
    "Of the token in what the step added; 0 where no token differs."
    recorded: str
    now: str

    def __str__(self) -> str:
        tokens = self.what in ("prompt", "guidance")
        place = f"token {self.position} of its {self.what}" if tokens else f"its {self.what}"
        return f"step {self.step}, {place}: was {self.recorded} and is {self.now}"


@dataclass(frozen=True, slots=True)
class Rerendered:
    """One episode, rendered again."""

    episode: str
    steps: int
    tokens: int
    "Of the prompts, recorded."
    forks: tuple[int, int]
    "How often a context began anew in mid-episode: recorded, and now."
    differing: int
    "Steps of which anything differs."
    first: Difference | None

    def __str__(self) -> str:
        if not self.steps:
            return f"{self.episode}  has no tokens: who played it gave none"
        then, now = self.forks
        forks = f"{then} forks" if then == now else f"{then} forks then and {now} now"
        counted = f"{self.episode}  {self.steps} steps, {self.tokens} prompt tokens, {forks}"
        if self.first is None:
            return f"{counted}: the same"
        return f"{counted}: {self.differing} steps differ, first {self.first}"


async def rerender_all(
    recorded: Recorded, names: Sequence[str], renderer: Renderer, context: ContextPolicy
) -> list[Rerendered]:
    """In the order of `names`. An environment is reset once for each task, for the tools that it offers."""
    if recorded.config is not None and recorded.config.experience is not None:
        raise ConfigError(
            f"the prompts of {recorded.folder} showed experiences ([experience]), which its episodes do not hold: they "
            "cannot be rendered again."
        )
    tools: dict[str, Sequence[ToolSpec]] = {}
    found = []
    for name in names:
        trajectory = recorded.reader.trajectory(name)
        task = trajectory.task
        if task.id not in tools:
            tools[task.id] = await tools_of(recorded.environment(), task)
        found.append(await rerender(trajectory, renderer, context, tools[task.id]))
    return found


async def rerender(
    trajectory: Trajectory, renderer: Renderer, context: ContextPolicy, tools: Sequence[ToolSpec]
) -> Rerendered:
    """The steps that the episode took itself; those that it shares with another were rendered there.

    `tools` are those that the environment offers. Where the episode has no tokens (it was played through a chat API, or
    by an agent without a model) there is nothing to prove, and no step is counted. Raises `RenderingError`.
    """
    own = [step for step in trajectory.own if len(step.tokens)]
    found, forks = [], 0
    for step in own:
        decision = await _decided(trajectory, step, TokenPlayer(_Recording(step), renderer, context), tools)
        forks += decision.context is None and step.index > 0
        difference = _difference(step, decision, renderer)
        if difference is not None:
            found.append(difference)
    return Rerendered(
        episode=trajectory.id,
        steps=len(own),
        tokens=sum(len(step.prompt) for step in own),
        forks=(sum(step.context is None and step.index > 0 for step in own), forks),
        differing=len(found),
        first=found[0] if found else None,
    )


async def tools_of(environment: Environment, task: Task) -> Sequence[ToolSpec]:
    """What an environment, which is closed here, offers after the reset. Raises `EnvironmentFault`."""
    try:
        world = GuardedWorld(environment, task, EpisodeLimits(), lambda stage: None)
        await world.reset()
        return world.tools
    finally:
        await environment.close()


class _Recording:
    """Gives the recorded tokens where an engine would sample."""

    max_context = 1 << 30
    version = 0

    def __init__(self, step: Step) -> None:
        self._step = step

    async def generate(self, request: GenerateRequest) -> Completion:
        step = self._step
        return Completion(step.tokens, step.logprobs, step.versions, step.finish)

    async def forget(self, session: str) -> None: ...


async def _decided(trajectory: Trajectory, step: Step, player: TokenPlayer, tools: Sequence[ToolSpec]) -> Decision:
    seat = Seat(
        trajectory.id,
        trajectory.id,
        EpisodeLimits(),
        player.max_context,
        trajectory.task.id,
        trajectory.group,
        0,
        given=trajectory.given,
        shared=len(trajectory.steps) - len(trajectory.own),
    )
    decider = player.sit(seat)
    decider.prepare(trajectory.steps[: step.index], step.observation, tools)
    return await decider.decide()


def _difference(step: Step, decision: Decision, renderer: Renderer) -> Difference | None:
    if (step.context is None) != (decision.context is None):
        words = ["it extends the step before it", "its context begins anew"]
        was, now = words[step.context is None], words[decision.context is None]
        return Difference(step.index, "context", 0, was, now)
    for what, old, new in (("prompt", step.prompt, decision.prompt), ("guidance", step.seen, decision.seen)):
        if not np.array_equal(old, new):
            at = _first(old, new)
            return Difference(step.index, what, at, _around(old, at, renderer), _around(new, at, renderer))
    if step.action != decision.action:
        return Difference(step.index, "action", 0, repr(step.action), repr(decision.action))
    return None


def _first(old: TokenIds, new: TokenIds) -> int:
    size = min(len(old), len(new))
    unequal = np.flatnonzero(old[:size] != new[:size])
    return int(unequal[0]) if len(unequal) else size


def _around(tokens: TokenIds, at: int, renderer: Renderer) -> str:
    """The text before the token, and from it on."""
    if at >= len(tokens):
        return f"the end, after {renderer.decode(tokens[max(0, at - AROUND) : at])!r}"
    before, after = tokens[max(0, at - AROUND) : at], tokens[at : at + AROUND]
    return f"{int(tokens[at])} {renderer.decode(after)!r} after {renderer.decode(before)!r}"
