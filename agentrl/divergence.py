"""Where an episode that is played again first leaves its record.

Equal is equal: the same actions in the same world have no tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from agentrl.pictures import picture_name
from agentrl.types import Message, Observation, StepResult


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first thing that differs."""

    step: int
    "0-based: the decision before which it was shown, or after which it came back."
    what: str
    recorded: str
    now: str

    def __str__(self) -> str:
        return f"{self.what} was {self.recorded} and is {self.now}"


def shown_otherwise(step: int, recorded: Observation, now: Observation) -> Divergence | None:
    """Whether something else is shown before step `step`."""
    if recorded.messages != now.messages:
        return Divergence(step, "what is shown", *apart(_text(recorded.messages), _text(now.messages)))
    # A record names its pictures; a world shows them whole.
    pictures = [tuple(map(picture_name, observation.images)) for observation in (recorded, now)]
    if pictures[0] != pictures[1]:
        return Divergence(step, "images", repr(pictures[0]), repr(pictures[1]))
    if recorded.state_key != now.state_key:
        return Divergence(step, "state key", repr(recorded.state_key), repr(now.state_key))
    return None


def came_otherwise(step: int, recorded: StepResult, now: StepResult) -> Divergence | None:
    """Whether something else came back from step `step`, apart from what is shown next. Of scores, those of both."""
    for what in ("policy_error", "reward", "terminated", "truncated"):
        old, new = getattr(recorded, what), getattr(now, what)
        if old != new:
            return Divergence(step, f"its {what.replace('_', ' ')}", repr(old), repr(new))
    for name in sorted(recorded.scores.keys() & now.scores.keys()):
        if recorded.scores[name] != now.scores[name]:
            return Divergence(step, f"its score {name}", repr(recorded.scores[name]), repr(now.scores[name]))
    return None


def apart(one: str, other: str, before: int = 30, after: int = 50) -> tuple[str, str]:
    """Both texts, quoted, around the first character in which they differ."""
    pairs = zip_longest(one, other)
    at = next((place for place, (left, right) in enumerate(pairs) if left != right), len(one))
    return _around(one, at, before, after), _around(other, at, before, after)


def _around(text: str, at: int, before: int, after: int) -> str:
    start = max(0, at - before)
    cut = text[start : at + after]
    return f"{'...' * (start > 0)}{cut!r}{'...' * (at + after < len(text))}"


def _text(messages: Sequence[Message]) -> str:
    """Everything that tells two messages apart."""
    lines = []
    for message in messages:
        calls = [f"{call.name}({dict(call.arguments)}) {call.id}".rstrip() for call in message.tool_calls]
        who = " ".join(word for word in (message.role, message.name, message.call_id) if word)
        lines.append("\n".join([f"[{who}] {message.content}", *calls]))
    return "\n".join(lines)
