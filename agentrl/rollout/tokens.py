"""The policy in training: prompts are rendered to token ids, answers are sampled ids, and nothing is tokenised twice.

The recorded deltas along `Step.context` are exactly what the engine was given and returned; every prompt is checked
against them before it is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from agentrl.errors import EnvironmentFault, InfrastructureFault, InvalidDataError, RenderingError
from agentrl.protocols import ContextPolicy, Environment, GenerateRequest, Renderer
from agentrl.rollout.context import Append, history, line_of, with_text
from agentrl.rollout.decisions import Client, Decision, Seat, told_when_cut
from agentrl.rollout.entropy import step_entropy
from agentrl.types import (
    Action,
    Completion,
    Finish,
    Observation,
    SamplingParams,
    Source,
    Step,
    Task,
    TokenIds,
    ToolSpec,
    token_ids,
)


class Sampler(Protocol):
    """The part of an engine that an episode needs."""

    @property
    def max_context(self) -> int: ...

    @property
    def version(self) -> int: ...

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
    """Implements `decisions.Decider` and `decisions.Insider`: one episode as a path of tokens.

    What the policy is given (`Seat.given`) stands in the path that the engine reads and not in the one that is trained
    on; without it the two are one.
    """

    def __init__(self, player: TokenPlayer, seat: Seat) -> None:
        self._player = player
        self._seat = seat
        self._index = 0
        self._first = 0
        "Place of the step with which the present context began, among those that lead to what is shown."
        self._trained: TokenIds | None = None
        "What is trained on in the present context; None before the first prompt."
        self._read = token_ids([])
        "What the engine was sent and sampled in the present context."
        self._prompt = token_ids([])
        "What the engine is sent next."
        self._known = 0
        "Steps that the two above cover."
        self._context: str | None = None
        self._delta = self._seen = token_ids([])
        self._tools: Sequence[ToolSpec] = ()
        self._client: Client | None = None

    def meet(self, environment: Environment, task: Task) -> None:
        self._client = environment if isinstance(environment, Client) else None

    def prepare(self, steps: Sequence[Step], observation: Observation, tools: Sequence[ToolSpec]) -> bool:
        self._index, self._tools = len(steps), tools
        if self._seat.line and len(steps) >= len(self._seat.line):
            return False
        line = line_of(steps, observation)
        if not line:
            self._trained = None
        elif self._known != len(steps) or observation.follows is not None:
            # A fork, steps that another decider took, or a world that went back to an earlier one.
            self._first = max(place for place, step in enumerate(line) if step.context is None)
            self._trained = _path(line[self._first :], len(steps))
            self._read = _path(line[self._first :], self._seat.shared)
        self._render(steps, line, observation)
        limits = self._seat.limits
        if len(self._prompt) + limits.max_tokens > self._seat.max_context:
            if steps:
                return False
            raise EnvironmentFault(
                f"the first prompt of task {self._seat.task!r} has {len(self._prompt)} tokens; with "
                f"{limits.max_tokens} for the answer it does not fit into a context of {self._seat.max_context}. "
                "Shorten what `reset` shows or raise max_context."
            )
        if not np.array_equal(self._prompt, _path(line[self._first :], self._seat.shared, self._seen)):
            raise InvalidDataError(
                f"the prompt of step {self._index} of {self._seat.name} is not the concatenation of its recorded "
                "deltas: an engine or a renderer changed token arrays in place. Return new arrays."
            )
        return True

    async def decide(self) -> Decision:
        player, seat = self._player, self._seat
        completion = self._written() if seat.line else await self._sampled()
        self._check(completion)
        tokens = token_ids(completion.tokens)
        trained, self._read = self._trained, np.concatenate([self._prompt, tokens])
        assert trained is not None
        self._trained = self._read if trained is self._prompt else np.concatenate([trained, tokens])
        self._known = self._index + 1
        action = player.renderer.parse(tokens, self._tools)
        decision = Decision(
            action=told_when_cut(action, completion.finish, f"at {len(tokens)} tokens"),
            context=self._context,
            prompt=self._delta,
            tokens=tokens,
            logprobs=completion.logprobs.astype(np.float32, copy=False),
            versions=token_ids(completion.versions),
            finish=completion.finish,
            scores={"entropy": step_entropy(completion, seat.top_logprobs)} if completion.top_logprobs else {},
            source=Source.EXPERT if seat.line else Source.POLICY,
            seen=token_ids([]) if np.array_equal(self._seen, self._delta) else self._seen,
        )
        if self._client is not None:
            self._client.sampled(decision, player.renderer)
        return decision

    async def _sampled(self) -> Completion:
        player, seat = self._player, self._seat
        sampling = SamplingParams(
            max_tokens=seat.limits.max_tokens,
            temperature=seat.limits.temperature,
            seed=seat.seed(self._index),
            stop_token_ids=player.renderer.stop_token_ids,
            top_logprobs=seat.top_logprobs,
        )
        if self._client is None:
            return await player.engine.generate(GenerateRequest(self._prompt, sampling, seat.session))
        sampling = self._client.sampling(sampling, seat.max_context - len(self._prompt))
        completion = await player.engine.generate(GenerateRequest(self._prompt, sampling, seat.session))
        return self._client.stopped(completion, player.renderer)

    def _written(self) -> Completion:
        """The expert's action as the policy would express it: probability 1, and as old as the policy that meets it."""
        player, action = self._player, self._seat.line[self._index]
        tokens = token_ids(player.renderer.action_tokens(action, self._tools))
        check_expressed(player.renderer, action, player.renderer.parse(tokens, self._tools))
        versions = np.full(len(tokens), player.engine.version, np.int32)
        return Completion(tokens, np.zeros(len(tokens), np.float32), versions, Finish.STOP)

    def _render(self, steps: Sequence[Step], line: Sequence[Step], observation: Observation) -> None:
        """The step whose tokens the next prompt extends (None for a new context), and the ids to add."""
        renderer, tools, given = self._player.renderer, self._tools, self._seat.given
        messages = self._player.context.rewrite(line, observation)
        if messages is None and self._trained is not None:
            delta = seen = renderer.extend(self._trained, observation.messages, tools)
            if given:
                first = self._index == self._seat.shared
                shown = with_text(observation.messages, given) if first else observation.messages
                seen = renderer.extend(self._read, shown, tools)
            if delta is not None and seen is not None:
                self._context = line[-1].id
                return self._send(delta, seen)
            messages = history(steps, observation)
        self._context, self._first = None, len(line)
        self._trained = self._read = token_ids([])
        shown = observation.messages if messages is None else messages
        delta = renderer.render(shown, tools)
        return self._send(delta, renderer.render(with_text(shown, given), tools) if given else delta)

    def _send(self, delta: TokenIds, seen: TokenIds) -> None:
        """Put `seen` behind what the engine reads and `delta` behind what is trained on."""
        assert self._trained is not None
        self._delta, self._seen = token_ids(delta), token_ids(seen)
        apart = bool(self._seat.given)
        self._prompt = np.concatenate([self._read, self._seen])
        self._trained = np.concatenate([self._trained, self._delta]) if apart else self._prompt

    def _check(self, completion: Completion) -> None:
        if completion.finish is Finish.ABORT or not len(completion.tokens):
            raise InfrastructureFault(
                f"the engine returned {len(completion.tokens)} tokens and finish {completion.finish.value!r} for "
                f"step {self._index} of {self._seat.name}; at least one token is needed. Its log says why it gave up."
            )
        if not np.isfinite(completion.logprobs).all():
            raise InfrastructureFault(
                f"the engine returned {int((~np.isfinite(completion.logprobs)).sum())} log-probabilities that are not "
                f"finite for step {self._index} of {self._seat.name}. Look whether its weights are finite."
            )


def check_expressed(renderer: Renderer, given: Action, read: Action) -> None:
    """Raises `RenderingError` where an action that was written reads back as another."""
    calls, found = ([(call.name, dict(call.arguments)) for call in action.tool_calls] for action in (given, read))
    same_text = bool(given.tool_calls) or given.text.strip() == read.text.strip()
    if not given.error and (calls != found or not same_text or read.error):
        raise RenderingError(
            f"renderer {renderer.name!r} writes {given} and reads it back as {read}. Say it in a form that it can "
            "express, or choose another renderer."
        )


def _path(steps: Sequence[Step], shared: int, *more: TokenIds) -> TokenIds:
    """What the engine read of `steps` and sampled; the first `shared` of the episode are read as they are trained."""
    parts = ((step.seen if step.index >= shared and len(step.seen) else step.prompt, step.tokens) for step in steps)
    path: TokenIds = np.concatenate([*(part for pair in parts for part in pair), *more])
    return path
