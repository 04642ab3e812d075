"""A model that is given messages and returns no tokens: a chat API, to be measured and never trained on.

Its steps hold empty token arrays; what the server counted stands in their scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from agentrl.errors import InfrastructureFault
from agentrl.protocols import ChatEngine, ContextPolicy
from agentrl.rollout.context import Append, history, line_of
from agentrl.rollout.decisions import Decision, Seat, told_when_cut
from agentrl.types import Finish, Message, Observation, SamplingParams, Step, ToolSpec, token_ids

_NOTHING = token_ids([])


@dataclass(frozen=True, slots=True)
class ChatPlayer:
    """Implements `decisions.Player` with a chat engine."""

    engine: ChatEngine
    context: ContextPolicy = field(default_factory=Append)

    @property
    def max_context(self) -> int:
        return self.engine.max_context

    def sit(self, seat: Seat) -> ChatDecider:
        return ChatDecider(self, seat)

    async def forget(self, session: str) -> None:
        """Nothing is kept."""


class ChatDecider:
    """Implements `decisions.Decider`: one episode as a list of messages."""

    def __init__(self, player: ChatPlayer, seat: Seat) -> None:
        self._player = player
        self._seat = seat
        self._messages: list[Message] = []
        self._counted = 0
        "Tokens of the context so far as the server counted them; what it was not sent yet is not in it."
        self._index = 0
        self._context: str | None = None
        self._tools: Sequence[ToolSpec] = ()

    def prepare(self, steps: Sequence[Step], observation: Observation, tools: Sequence[ToolSpec]) -> bool:
        self._index, self._tools = len(steps), tools
        rewritten = self._player.context.rewrite(steps, observation)
        if rewritten is None:
            # An episode that was forked begins with steps that were taken elsewhere.
            fresh = not self._messages or observation.follows is not None
            self._messages = [*history(steps, observation)] if fresh else [*self._messages, *observation.messages]
            self._counted *= observation.follows is None
            line = line_of(steps, observation)
            self._context = line[-1].id if line else None
        else:
            self._messages, self._counted, self._context = list(rewritten), 0, None
        # What is shown now is not counted yet, and it is at least one token.
        return self._counted + self._seat.limits.max_tokens < self._seat.max_context

    async def decide(self) -> Decision:
        limits = self._seat.limits
        # Some servers take a seed of 31 bits only.
        sampling = SamplingParams(limits.max_tokens, limits.temperature, self._seat.seed(self._index) >> 17)
        reply = await self._player.engine.chat(tuple(self._messages), self._tools, sampling)
        if reply.finish is Finish.ABORT:
            raise InfrastructureFault(
                f"the engine broke its answer to step {self._index} of {self._seat.name} off. "
                "Its server's log says why."
            )
        usage = reply.usage
        action = told_when_cut(reply.action, reply.finish, "because it was too long")
        self._messages.append(action.message())
        self._counted = usage.prompt_tokens + usage.completion_tokens
        return Decision(
            action=action,
            context=self._context,
            prompt=_NOTHING,
            tokens=_NOTHING,
            logprobs=np.zeros(0, np.float32),
            versions=_NOTHING,
            finish=reply.finish,
            scores={
                "prompt_tokens": float(usage.prompt_tokens),
                "completion_tokens": float(usage.completion_tokens),
            },
        )
