"""The model families that the package `renderers` covers, behind our protocol.

The prefix is checked, not trusted: where the package would rewrite what was sampled (it strips old reasoning, or drops
tokens behind a stop token) `extend` returns None and the caller forks. The package encodes message text with control
tokens recognised: an observation that spells one out is not neutralised here, unlike in our own renderers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from agentrl.errors import RenderingError
from agentrl.rendering.tokenizer import joined
from agentrl.types import Action, Message, TokenIds, ToolCall, ToolSpec, token_ids

_PROBE = [{"role": "user", "content": "a"}]
_MISTAKES = {
    "invalid_json": "is not valid JSON",
    "unclosed_block": "is never closed",
    "missing_name": "has no tool name",
    "malformed_structure": "has the wrong structure",
    "unknown_tool": "names a tool that does not exist",
}
T = TypeVar("T")


def family_names() -> tuple[str, ...]:
    """`default` is any tokenizer's own chat template, which forks at every step."""
    from renderers.base import MODEL_RENDERER_MAP

    return tuple(sorted({*MODEL_RENDERER_MAP.values(), "default"}))


def family_of(tokenizer: Any) -> str | None:
    """The family of a model that the package knows by its hub name, also as a folder or in the hub's cache."""
    from renderers.base import MODEL_RENDERER_MAP

    path = str(getattr(tokenizer, "name_or_path", "")).replace("\\", "/").rstrip("/")
    for model, family in MODEL_RENDERER_MAP.items():
        if f"/{path}".endswith(f"/{model}") or f"/models--{model.replace('/', '--')}/" in f"/{path}/":
            return str(family)
    return None


class Family:
    def __init__(self, tokenizer: Any, family: str) -> None:
        from renderers import config_from_name, create_renderer

        self.name = family
        self._tokenizer = tokenizer
        self._renderer = self._guarded(lambda: create_renderer(tokenizer, config_from_name(family)))
        self.stop_token_ids = tuple(int(token) for token in self._renderer.get_stop_token_ids())
        closed = self._render(_PROBE, None, opened=False)
        # What a prompt ends with so that the assistant speaks next, such as `<|im_start|>assistant\n`.
        self._opening = self._render(_PROBE, None, opened=True)[len(closed) :]
        if not len(self._opening):
            raise RenderingError(
                f"the template of family {family!r} has no opening of an assistant turn, so nothing asks the model to "
                "speak. Choose another renderer (`agentrl list renderers`)."
            )

    def render(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> TokenIds:
        if not messages:
            raise RenderingError("there are no messages to render; a prompt needs at least one.")
        return self._render([_message(m) for m in messages], _tools(tools), opened=True)

    def extend(self, context: TokenIds, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> TokenIds | None:
        split = self._prompt_length(context)
        prompt, sampled = context[:split].tolist(), context[split:].tolist()
        added = [_message(m) for m in messages]
        bridged = self._guarded(
            lambda: self._renderer.bridge_to_next_turn(prompt, sampled, added, tools=_tools(tools)),
        )
        if bridged is None:
            return None
        whole = token_ids(bridged.token_ids)
        if not np.array_equal(whole[: len(context)], context):
            return None
        return whole[len(context) :]

    def parse(self, tokens: TokenIds, tools: Sequence[ToolSpec]) -> Action:
        parsed = self._guarded(lambda: self._renderer.parse_response(tokens.tolist(), tools=_tools(tools)))
        reasoning = (parsed.reasoning_content or "").strip()
        calls = []
        for number, call in enumerate(parsed.tool_calls, start=1):
            mistake = _MISTAKES.get(str(call.status), "")
            if not mistake and not isinstance(call.arguments, dict):
                mistake = "has arguments that are not a JSON object"
            if mistake:
                raw = str(call.raw)[:200]
                return Action(self._text(tokens), (), reasoning, f"Tool call {number} {mistake}: {raw}")
            calls.append(ToolCall(call.name, call.arguments, call.id or ""))
        if parsed.reasoning_complete is False:
            return Action("", (), reasoning, "The answer was cut off before the thinking ended.")
        return Action(parsed.content.strip(), tuple(calls), reasoning)

    def action_tokens(self, action: Action, tools: Sequence[ToolSpec] = ()) -> TokenIds:
        """Without thinking the template's own empty block stands where it writes one."""
        message = _message(action.message())
        if action.reasoning:
            message["reasoning_content"] = action.reasoning
        # Some templates (GLM) close a turn with the opening of the next one, so there must be one.
        answer = {"role": "tool" if action.tool_calls else "user", "content": "a"}
        for conversation in ([*_PROBE, message], [*_PROBE, message, answer]):
            sampled = self._sampled(conversation)
            stops = np.flatnonzero(np.isin(sampled, self.stop_token_ids))
            if len(stops):
                return sampled[: stops[0] + 1]
        raise RenderingError(
            f"the template of family {self.name!r} writes no stop token ({self.stop_token_ids}) behind "
            f"the action {action!r}; the policy could not have expressed it."
        )

    def decode(self, tokens: TokenIds) -> str:
        return str(self._tokenizer.decode(tokens.tolist(), skip_special_tokens=False))

    def _render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, *, opened: bool) -> TokenIds:
        ids = self._guarded(
            lambda: self._renderer.render_ids(messages, tools=tools, add_generation_prompt=opened),
        )
        return joined([ids])

    def _sampled(self, conversation: list[dict[str, Any]]) -> TokenIds:
        """What stands behind the opening of the assistant's turn, the second message."""
        rendered = self._guarded(lambda: self._renderer.render(conversation))
        whole, prompt = token_ids(rendered.token_ids), self._render(_PROBE, None, opened=True)
        if np.array_equal(whole[: len(prompt)], prompt):
            return whole[len(prompt) :]
        own, mask = np.asarray(rendered.message_indices) == 1, np.asarray(rendered.sampled_mask, np.bool_)
        return whole[own & mask] if len(mask) else whole[:0]

    def _prompt_length(self, context: TokenIds) -> int:
        """Where the last assistant turn was opened: the package wants prompt and completion apart."""
        starts = np.flatnonzero(context == self._opening[0])
        if not len(starts):
            return len(context)
        position = int(starts[-1])
        for token in self._opening:
            if position < len(context) and context[position] == token:
                position += 1
        return position

    def _text(self, tokens: TokenIds) -> str:
        kept = tokens[:-1] if len(tokens) and int(tokens[-1]) in self.stop_token_ids else tokens
        return self.decode(kept).strip()

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except Exception as problem:  # foreign code: it raises assertions and key errors for bad conversations
            raise RenderingError(
                f"the renderer of family {self.name!r} failed: {type(problem).__name__}: {problem}"
            ) from problem


def _message(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        found["tool_calls"] = [
            {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": dict(call.arguments)}}
            for call in message.tool_calls
        ]
    if message.name:
        found["name"] = message.name
    if message.call_id:
        found["tool_call_id"] = message.call_id
    return found


def _tools(tools: Sequence[ToolSpec]) -> list[dict[str, Any]] | None:
    return [tool.as_function() for tool in tools] or None
