"""Which recorded step a request goes on with, by what was said up to there.

Messages are compared by meaning (role, words, calls), never by tokens: who sends back what it was given goes on from
the recorded tokens, and who changed anything does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from agentrl.types import Message, ToolSpec

NOWHERE = -1
Digests = tuple[bytes, ...]
"Of every beginning of a conversation, its tools included: entry i is of the first i + 1 messages."


def digests_of(messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Digests:
    """Other tools are another conversation, since the prompt shows them."""
    shown = [(tool.name, tool.description, tool.parameters) for tool in tools]
    found = [blake2b(_ordered(shown), digest_size=16).digest()]
    for message in messages:
        found.append(_then(found[-1], message))
    return tuple(found[1:])


class Memory:
    """The conversations of one session."""

    def __init__(self) -> None:
        self._steps: dict[bytes, int] = {}

    def place(self, digests: Digests) -> tuple[int, int]:
        """The last step that a request goes on with (`NOWHERE` of none), and how many of its messages that covers.

        At least one message is left over: a prompt needs something to answer.
        """
        for covered in range(len(digests) - 1, 0, -1):
            step = self._steps.get(digests[covered - 1])
            if step is not None:
                return step, covered
        return NOWHERE, 0

    def keep(self, step: int, digests: Digests, reply: Message) -> None:
        """Step `step` answered with `reply`. Of two equal answers the later one is gone on with."""
        self._steps[_then(digests[-1], reply)] = step


def _then(before: bytes, message: Message) -> bytes:
    return blake2b(before + _ordered(_meaning(message)), digest_size=16).digest()


def _meaning(message: Message) -> tuple[object, ...]:
    if message.role == "assistant":
        # Frameworks strip the words and number the calls anew.
        return "assistant", message.content.strip(), [(call.name, call.arguments) for call in message.tool_calls]
    return message.role, message.content, message.call_id


def _ordered(value: object) -> bytes:
    return msgspec.json.encode(value, order="sorted")
