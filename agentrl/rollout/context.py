"""What the next prompt shows of the episode so far.

A policy that returns None appends to the tokens so far; one that returns messages starts a new context, and the
tokens sampled before stay in the context they were sampled in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agentrl.errors import ConfigError
from agentrl.types import Message, Observation, Step


class Append:
    """The whole episode, always: one growing context."""

    def rewrite(self, steps: Sequence[Step], observation: Observation) -> tuple[Message, ...] | None:
        return None


class Window:
    """The task and the last `size` steps; earlier ones are left out."""

    def __init__(self, size: int, note: str = "[{hidden} earlier steps are not shown]") -> None:
        """`note` stands where steps are left out; an empty one leaves no trace (for a small vocabulary)."""
        if size < 0:
            raise ConfigError(f"the window is {size} steps; 0 (only what is shown now) and above are allowed.")
        self.size = size
        self.note = note

    def rewrite(self, steps: Sequence[Step], observation: Observation) -> tuple[Message, ...] | None:
        hidden = len(steps) - self.size
        if hidden <= 0:
            return None
        head = steps[0].observation.messages
        recent = steps[hidden:]
        shown = [step.observation for step in recent] + [observation]
        messages = list(_joined(head, shown[0].messages, self.note.format(hidden=hidden)))
        for step, answer in zip(recent, shown[1:], strict=True):
            messages += [step.action.message(), *answer.messages]
        return tuple(messages)


def line_of(steps: Sequence[Step], observation: Observation) -> tuple[Step, ...]:
    """The steps that `observation` goes on with, oldest first: all, but where a world went back or began anew."""
    place = len(steps) - 1 if observation.follows is None else observation.follows
    found: list[Step] = []
    while place >= 0:
        found.append(steps[place])
        before = steps[place].observation.follows
        place = place - 1 if before is None else before
    return tuple(reversed(found))


def history(steps: Sequence[Step], observation: Observation) -> tuple[Message, ...]:
    """All messages that lead to `observation`, itself included: what is rendered where a template cannot extend."""
    messages: list[Message] = []
    for step in line_of(steps, observation):
        messages += [*step.observation.messages, step.action.message()]
    return (*messages, *observation.messages)


def with_text(messages: Sequence[Message], text: str) -> tuple[Message, ...]:
    """`messages` with `text` behind them as the user's, in the last user turn where there is one.

    Two user turns in a row are refused by some chat templates.
    """
    if not text:
        return tuple(messages)
    if messages and messages[-1].role == "user":
        last = messages[-1]
        return (*messages[:-1], replace(last, content=f"{last.content}\n\n{text}" if last.content else text))
    return (*messages, Message("user", text))


def with_told(observation: Observation, told: str) -> Observation:
    """`observation` with `told` behind its messages."""
    return replace(observation, messages=with_text(observation.messages, told))


def _joined(head: tuple[Message, ...], shown: tuple[Message, ...], note: str) -> tuple[Message, ...]:
    """The task's messages and the oldest shown observation as one user turn.

    A tool's answer whose call is left out, or two user turns in a row, is refused by some chat templates.
    """
    text = "\n\n".join(part for part in [note, *(message.content for message in shown)] if part)
    if head and head[-1].role == "user":
        return (*head[:-1], Message("user", f"{head[-1].content}\n\n{text}"))
    return (*head, Message("user", text))
