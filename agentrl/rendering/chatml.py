"""ChatML turns for any tokenizer with `<|im_start|>` and `<|im_end|>` (SmolLM2, Qwen2.5).

What was sampled is never encoded again: the next turn is a delta behind it, and a turn that was cut off is closed by
the delta. No default system prompt is added (SmolLM2's own template would name a vendor and cost 20 tokens): the
system turn is the environment's system message and the tools, and is left out where there is neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentrl.errors import RenderingError
from agentrl.rendering.tokenizer import TextCodec, joined
from agentrl.rendering.toolcalls import ToolCallFormat
from agentrl.types import Action, Message, TokenIds, ToolSpec

START = "<|im_start|>"
END = "<|im_end|>"
_OTHER_STOPS = ("<|endoftext|>",)
_THINK, _THOUGHT = "<think>", "</think>"


class ChatML:
    """Tool results are turns of the role `tool`; a leading `<think>` block is read as the action's reasoning."""

    def __init__(self, tokenizer: Any, form: ToolCallFormat) -> None:
        self.name = "chatml" if form.name == "hermes" else f"chatml+{form.name}"
        self._form = form
        self._codec = TextCodec(tokenizer)
        start, end = self._codec.control(START), self._codec.control(END)
        if start is None or end is None:
            missing = " and ".join(token for token, found in ((START, start), (END, end)) if found is None)
            raise RenderingError(f"the tokenizer has no {missing}; the chatml renderer needs {START} and {END}.")
        self._start, self._end = start, end
        others = [self._codec.control(token) for token in _OTHER_STOPS]
        self.stop_token_ids = (end, *(token for token in others if token is not None and token != end))
        self._newline = self._codec.encode("\n")
        self._opening = (start, *self._codec.encode("assistant\n"))

    def render(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> TokenIds:
        if not messages:
            raise RenderingError("there are no messages to render; a prompt needs at least one.")
        first = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
        system = [message.content for message in messages[:first] if message.content]
        if tools:
            system.append(self._form.describe(tools))
        turns = [self._turn("system", "\n\n".join(system))] if system else []
        turns += [self._message(message, tools) for message in messages[first:]]
        return joined([*turns, self._opening])

    def extend(self, context: TokenIds, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> TokenIds | None:
        closing = () if len(context) and int(context[-1]) == self._end else (self._end,)
        return joined([closing, self._newline, *(self._message(message, tools) for message in messages), self._opening])

    def parse(self, tokens: TokenIds, tools: Sequence[ToolSpec]) -> Action:
        cut = len(tokens) - 1 if len(tokens) and int(tokens[-1]) in self.stop_token_ids else len(tokens)
        reasoning, text = _split_reasoning(self.decode(tokens[:cut]))
        action = self._form.read(text, tools)
        return Action(action.text, action.tool_calls, reasoning, action.error)

    def action_tokens(self, action: Action, tools: Sequence[ToolSpec] = ()) -> TokenIds:
        text = self._form.write(action, tools)
        if action.reasoning:
            text = f"{_THINK}\n{action.reasoning}\n{_THOUGHT}\n\n{text}"
        return joined([self._codec.encode(text), (self._end,)])

    def decode(self, tokens: TokenIds) -> str:
        return self._codec.decode(tokens)

    def _message(self, message: Message, tools: Sequence[ToolSpec]) -> tuple[int, ...]:
        if message.role == "assistant":
            return self._turn("assistant", self._form.write(Action(message.content, message.tool_calls), tools))
        return self._turn(message.role, message.content)

    def _turn(self, role: str, text: str) -> tuple[int, ...]:
        # The role's line and the text are encoded apart, as they are when the text is sampled: a merge across the
        # line break (a text that starts with a newline) would otherwise give other ids than the sampled ones.
        return (
            self._start,
            *self._codec.encode(f"{role}\n"),
            *self._codec.encode(text),
            self._end,
            *self._newline,
        )


def _split_reasoning(text: str) -> tuple[str, str]:
    start = text.lstrip()
    if not start.startswith(_THINK) or _THOUGHT not in start:
        return "", text
    reasoning, _, rest = start[len(_THINK) :].partition(_THOUGHT)
    return reasoning.strip(), rest
