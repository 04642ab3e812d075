"""The user who talks to the agent: a model behind an OpenAI-compatible chat API, or a script that needs none.

A server that fails is an `InfrastructureFault`, never a silent user.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from agentrl.engines.openai import OpenAIEngine
from agentrl.errors import InfrastructureFault
from agentrl.types import Message, SamplingParams

STOPS = "###STOP###"
"With this in an answer the user of the benchmark ends the conversation."
PATIENCE = 10
"Questions that the scripted user answers."
_HELLO = "Hi! How can I help you today?"
_ASKS = re.compile(r"\?|\b(please (confirm|provide|tell|reply)|let me know|yes/no|yes or no)\b", re.IGNORECASE)
_LONGEST = 2000

Talk = Sequence[tuple[str, str]]
"What the agent said and what the user answered, in order."


class Customer(Protocol):
    async def opening(self) -> str: ...

    async def reply(self, talk: Talk, text: str) -> str | None:
        """The answer to `text` after `talk`; None ends the conversation."""
        ...

    async def close(self) -> None: ...


class ScriptedCustomer:
    """Says all of the instruction at once, agrees to whatever is asked, and leaves when nothing is asked."""

    def __init__(self, instruction: str) -> None:
        self._instruction = instruction

    async def opening(self) -> str:
        return f"Hello. This is who I am and what I want, as it was told to me: {self._instruction}"

    async def reply(self, talk: Talk, text: str) -> str | None:
        if not _ASKS.search(text) or len(talk) >= PATIENCE:
            return None
        return "Yes, please. I have told you all that I know."

    async def close(self) -> None:
        return None


class ModelCustomer:
    def __init__(self, part: str, url: str, model: str, key_env: str) -> None:
        """part: the instructions of the model. Raises `ConfigError` where the key is missing."""
        self._part = part
        self._first = ""
        self._engine = OpenAIEngine(url, model, api_key_env=key_env)

    async def opening(self) -> str:
        self._first = await self._says([])
        return self._first

    def began(self, opening: str) -> None:
        """Go on in a conversation that began with other words."""
        self._first = opening

    async def reply(self, talk: Talk, text: str) -> str | None:
        said = [Message("assistant", self._first)]
        for asked, answered in talk:
            said += [Message("user", asked), Message("assistant", answered)]
        answer = await self._says([*said, Message("user", text)])
        return None if STOPS in answer else answer

    async def close(self) -> None:
        await self._engine.close()

    async def _says(self, said: Sequence[Message]) -> str:
        messages = [Message("system", self._part), Message("user", _HELLO), *said]
        reply = await self._engine.chat(messages, (), SamplingParams(max_tokens=300, temperature=0.0, seed=0))
        answer = reply.action.text.strip()[:_LONGEST]
        if not answer:
            raise InfrastructureFault("the model that plays the user answered nothing; allow it more tokens.")
        return answer
