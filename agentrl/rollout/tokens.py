"""The policy in training: prompts are rendered to token ids, answers are sampled ids, and nothing is tokenised twice.

The recorded deltas along `Step.context` are exactly what the engine was given and returned; every prompt is checked
against them before it is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from agentrl.errors import EnvironmentFault, InfrastructureFault, InvalidDataError
from agentrl.protocols import ContextPolicy, GenerateRequest, Renderer
from agentrl.rollout.context import Append, history
from agentrl.rollout.decisions import Decision, Seat, told_when_cut
from agentrl.types import Completion, Finish, Observation, SamplingParams, Step, TokenIds, ToolSpec, token_ids


class Sampler(Protocol):
    """The part of an engine that an episode needs."""

    @property
    def max_context(self) -> int: ...

    async def generate(self, request: GenerateRequest) -> Completion: ...

    async def forget(self, session: str) -> None: ...


@dataclass(frozen=True, slots=True)
class TokenPlayer:
    """Implements `decisions.Player` with an engine that samples token ids."""

    engine: Sampler
    renderer: Renderer
    context: ContextPolicy = field(default_factory=Append)

    @property
    def max_context(self) -> int:
        return self.engine.max_context

    def sit(self, seat: Seat) -> TokenDecider:
        return TokenDecider(self, seat)

    async def forget(self, session: str) -> None:
        await self.engine.forget(session)


class TokenDecider:
    """Implements `decisions.Decider`: one episode as a path of tokens."""

    def __init__(self, player: TokenPlayer, seat: Seat) -> None:
        self._player = player
        self._seat = seat
        self._index = 0
        self._first = 0
        "The step with which the present context began."
        self._tokens: TokenIds | None = None
        "What was sent and sampled in the present context; None before the first prompt."
        self._known = 0
        "Steps that the tokens above cover."
        self._context: str | None = None
        self._delta = self._prompt = token_ids([])
        self._tools: Sequence[ToolSpec] = ()

    def prepare(self, steps: Sequence[Step], observation: Observation, tools: Sequence[ToolSpec]) -> bool:
        self._index, self._tools = len(steps), tools
        if steps and self._known != len(steps):
            # A fork, or steps that another decider took.
            self._first = max(step.index for step in steps if step.context is None)
            self._tokens = _deltas(steps[self._first :])
        self._render(steps, observation)
        limits = self._seat.limits
        if len(self._prompt) + limits.max_tokens > self._seat.max_context:
            if steps:
                return False
            raise EnvironmentFault(
                f"the first prompt of task {self._seat.task!r} has {len(self._prompt)} tokens; with "
                f"{limits.max_tokens} for the answer it does not fit into a context of {self._seat.max_context}. "
                "Shorten what `reset` shows or raise max_context."
            )
        if not np.array_equal(self._prompt, _deltas(steps[self._first :], self._delta)):
            raise InvalidDataError(
                f"the prompt of step {self._index} of {self._seat.name} is not the concatenation of its recorded "
                "deltas: an engine or a renderer changed token arrays in place. Return new arrays."
            )
        return True

    async def decide(self) -> Decision:
        player, seat = self._player, self._seat
        sampling = SamplingParams(
            max_tokens=seat.limits.max_tokens,
            temperature=seat.limits.temperature,
            seed=seat.seed(self._index),
            stop_token_ids=player.renderer.stop_token_ids,
        )
        completion = await player.engine.generate(GenerateRequest(self._prompt, sampling, seat.session))
        self._check(completion)
        tokens = token_ids(completion.tokens)
        self._tokens, self._known = np.concatenate([self._prompt, tokens]), self._index + 1
        action = player.renderer.parse(tokens, self._tools)
        return Decision(
            action=told_when_cut(action, completion.finish, f"at {len(tokens)} tokens"),
            context=self._context,
            prompt=self._delta,
            tokens=tokens,
            logprobs=completion.logprobs.astype(np.float32, copy=False),
            versions=token_ids(completion.versions),
            finish=completion.finish,
        )

    def _render(self, steps: Sequence[Step], observation: Observation) -> None:
        """The step whose tokens the next prompt extends (None for a new context), and the ids to add."""
        renderer = self._player.renderer
        messages = self._player.context.rewrite(steps, observation)
        if messages is None and self._tokens is not None:
            delta = renderer.extend(self._tokens, observation.messages, self._tools)
            if delta is not None:
                self._context, self._delta = steps[-1].id, token_ids(delta)
                self._prompt = np.concatenate([self._tokens, self._delta])
                return
            messages = history(steps, observation)
        self._context, self._first = None, len(steps)
        shown = observation.messages if messages is None else messages
        self._delta = self._prompt = token_ids(renderer.render(shown, self._tools))

    def _check(self, completion: Completion) -> None:
        if completion.finish is Finish.ABORT or not len(completion.tokens):
            raise InfrastructureFault(
                f"the engine returned {len(completion.tokens)} tokens and finish {completion.finish.value!r} for "
                f"step {self._index} of {self._seat.name}."
            )
        if not np.isfinite(completion.logprobs).all():
            raise InfrastructureFault(
                f"the engine returned a log-probability that is not finite for {self._seat.name}."
            )


def _deltas(steps: Sequence[Step], *more: TokenIds) -> TokenIds:
    return np.concatenate([*(part for step in steps for part in (step.prompt, step.tokens)), *more])
