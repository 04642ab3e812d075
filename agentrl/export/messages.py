"""An episode as chat messages, in the form that chat templates and dataset readers take.

The words are those that were exchanged: nothing is rendered and nothing is made up.
"""

from __future__ import annotations

from typing import Any

from agentrl.types import Message, Trajectory


def conversation(trajectory: Trajectory) -> list[Message]:
    """What was shown and answered, in time; it ends with what was shown last, where there is such.

    A context policy that rewrites may have shown the model less of it at a time.
    """
    found: list[Message] = []
    for step in trajectory.steps:
        found += [*step.observation.messages, step.action.message()]
    return found + list(trajectory.final.messages if trajectory.final else ())


def as_chat(message: Message) -> dict[str, Any]:
    """Keys that say nothing are left out; the arguments of a call are an object, as chat templates want them."""
    found: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        found["tool_calls"] = [
            {
                "type": "function",
                **({"id": call.id} if call.id else {}),
                "function": {"name": call.name, "arguments": dict(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.name:
        found["name"] = message.name
    if message.call_id:
        found["tool_call_id"] = message.call_id
    return found
