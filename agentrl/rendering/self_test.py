"""Proves at start that a renderer keeps the prefix for the model in hand, before a run spends hours on it.

It plays one scripted conversation (good calls, a malformed one, one that was cut off, an answer) and checks every
delta. A template that rewrites history is reported as forks; anything that would train on wrong tokens is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from agentrl.errors import RenderingError
from agentrl.protocols import Renderer
from agentrl.rendering.signatures import example_arguments
from agentrl.tiny import UNKNOWN
from agentrl.types import Action, Message, TokenIds, ToolCall, ToolSpec, token_ids

_TOOL = ToolSpec(
    "look",
    "Look at a thing.",
    {"type": "object", "properties": {"thing": {"type": "string"}}, "required": ["thing"]},
)


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What the scripted conversation showed."""

    renderer: str
    turns: int
    forks: int
    "Turns at which the template could not extend what was sampled."
    rewrites_at: int | None
    "First position at which rendering the whole conversation anew gives other ids than were sent and sampled."

    def __str__(self) -> str:
        if self.forks:
            return f"{self.renderer}: the template forked at {self.forks} of {self.turns} turns"
        again = "" if self.rewrites_at is None else f" (a fresh prompt would differ from token {self.rewrites_at})"
        return f"{self.renderer}: the prefix is kept over {self.turns} turns{again}"


def self_test(renderer: Renderer, tools: Sequence[ToolSpec] = ()) -> SelfTest:
    """Raises `RenderingError` that names the first differing position; returns how often the template forked."""
    tools = tools or (_TOOL,)
    _check_stops(renderer)
    for action in _actions(tools):
        _check_round_trip(renderer, action, tools)
    return _converse(renderer, tools)


def _actions(tools: Sequence[ToolSpec]) -> list[Action]:
    calls = [Action(tool_calls=(ToolCall(tool.name, example_arguments(tool)),)) for tool in tools]
    return [*calls, Action("done")]


def _check_stops(renderer: Renderer) -> None:
    if not renderer.stop_token_ids:
        raise RenderingError(f"the renderer {renderer.name!r} has no stop token; a completion could never end.")
    for stop in renderer.stop_token_ids:
        if not isinstance(stop, int) or stop < 0 or not renderer.decode(token_ids([stop])):
            raise RenderingError(
                f"the stop token {stop!r} of the renderer {renderer.name!r} is not one token id. Its `stop_token_ids` "
                "are ids that its tokenizer can decode."
            )


def _check_round_trip(renderer: Renderer, action: Action, tools: Sequence[ToolSpec]) -> None:
    tokens = renderer.action_tokens(action)
    stops = np.flatnonzero(np.isin(tokens, renderer.stop_token_ids))
    if stops.tolist() != [len(tokens) - 1]:
        raise RenderingError(
            f"{renderer.name}: the tokens of {action!r} should hold one stop token, at position {len(tokens) - 1}; "
            f"they hold one at {stops.tolist()}."
        )
    shown = renderer.decode(tokens)
    for call in action.tool_calls:
        if call.name not in shown:
            raise RenderingError(
                f"{renderer.name}: the tokenizer cannot express the tool name {call.name!r} (it reads {shown!r}); "
                "the policy could never call it. Build the tokenizer from texts that hold every tool's name."
            )
    parsed = renderer.parse(tokens, tools)
    # Some families number their calls; the number is not part of what was asked.
    parsed = replace(parsed, tool_calls=tuple(replace(call, id="") for call in parsed.tool_calls))
    if parsed == action or UNKNOWN in shown:  # a small vocabulary need not hold the words of this test
        return
    again = tokens[:0] if parsed.error else renderer.action_tokens(parsed)
    raise RenderingError(
        f"{renderer.name}: the action {action!r} is written as {shown!r}, which reads as "
        f"{parsed!r}; the tokens first differ at position {_difference(tokens, again)}."
    )


def _converse(renderer: Renderer, tools: Sequence[ToolSpec]) -> SelfTest:
    good, answer = _actions(tools)[0], Action("done")
    call = renderer.action_tokens(good)
    # A turn is what was sampled, and the action when a fresh prompt should spell it in the same way.
    script: list[tuple[TokenIds, Action | None]] = [
        (call, good),
        (call, good),
        (renderer.action_tokens(answer), answer),
        (np.concatenate([call[:-1], call]), None),
        (call[: max(1, len(call) // 2)], None),
        (call[:0], None),
    ]
    messages = [Message("system", "You are in a test."), Message("user", "Look around.")]
    context = renderer.render(messages, tools)
    forks, rewrites_at, canonical = 0, None, True
    for number, (sampled, action) in enumerate(script):
        name = good.tool_calls[0].name if action is good else ""
        reply = Message("tool", f"seen {number}", name=name) if name else Message("user", f"go on {number}")
        messages = [*messages, (action or renderer.parse(sampled, tools)).message(), reply]
        before = np.concatenate([context, sampled])
        delta = renderer.extend(before, [reply], tools)
        anew = renderer.render(messages, tools)
        if delta is None:
            forks, context = forks + 1, anew
            continue
        _check_delta(renderer, delta, anew, reply, number)
        context = np.concatenate([before, delta])
        canonical = canonical and action is not None
        if canonical and forks == 0 and rewrites_at is None and not np.array_equal(context, anew):
            rewrites_at = _difference(context, anew)
    return SelfTest(renderer.name, len(script), forks, rewrites_at)


def _check_delta(renderer: Renderer, delta: TokenIds, anew: TokenIds, reply: Message, turn: int) -> None:
    shown = renderer.decode(delta)
    lost = [word for word in reply.content.split() if word not in shown]
    if lost and UNKNOWN not in shown:
        raise RenderingError(f"{renderer.name}: turn {turn} should show {reply.content!r}; its tokens read {shown!r}.")
    # Both end where the assistant speaks next; a word of context decides how much of that is common.
    if not len(delta) or delta[-1] != anew[-1]:
        raise RenderingError(
            f"{renderer.name}: turn {turn} ends with token {delta[-1:].tolist()}, a fresh prompt with "
            f"{anew[-1:].tolist()} (position {len(anew) - 1}); the model would not know that it is its turn."
        )


def _difference(left: TokenIds, right: TokenIds) -> int:
    size = min(len(left), len(right))
    unequal = np.flatnonzero(left[:size] != right[:size])
    return int(unequal[0]) if len(unequal) else size
