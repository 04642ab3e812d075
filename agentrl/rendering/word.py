"""The renderer for small word-level tokenizers: `<sys> rules <obs> what is seen <act> go north <end>`.

Every token costs time, so there is nothing else: tools are not listed (a model trained from scratch learns them)
unless the name asks for it (`word+tools`), and a word that the vocabulary lacks becomes `<unk>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentrl.errors import RenderingError
from agentrl.rendering.tokenizer import TextCodec, joined
from agentrl.rendering.toolcalls import ToolCallFormat
from agentrl.tiny import CONTROL_TOKENS
from agentrl.types import Action, Message, TokenIds, ToolSpec

_OPENERS = ("(", "[")
_CLOSERS = (".", ",", "!", "?", ";", ":", ")", "]")


class Word:
    def __init__(self, tokenizer: Any, form: ToolCallFormat, *, list_tools: bool) -> None:
        self.name = "word+tools" if list_tools else "word"
        self._list_tools = list_tools
        self._form = form
        self._codec = TextCodec(tokenizer)
        ids = [self._codec.control(token) for token in CONTROL_TOKENS]
        if missing := [token for token, found in zip(CONTROL_TOKENS, ids, strict=True) if found is None]:
            raise RenderingError(
                f"the tokenizer has no {', '.join(missing)}; the word renderer needs {', '.join(CONTROL_TOKENS)} "
                "(agentrl.models.make_tiny builds such a tokenizer)."
            )
        self._system, self._observation, self._act, self._end = (token for token in ids if token is not None)
        self.stop_token_ids: tuple[int, ...] = (self._end,)

    def render(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> TokenIds:
        if not messages:
            raise RenderingError("there are no messages to render; a prompt needs at least one.")
        listed = [(self._system, *self._codec.encode(self._form.describe(tools)))] if tools and self._list_tools else []
        return joined([*listed, *(self._message(message, tools) for message in messages), (self._act,)])

    def extend(self, context: TokenIds, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> TokenIds | None:
        closing = () if len(context) and int(context[-1]) == self._end else (self._end,)
        return joined([closing, *(self._message(message, tools) for message in messages), (self._act,)])

    def parse(self, tokens: TokenIds, tools: Sequence[ToolSpec]) -> Action:
        cut = len(tokens) - 1 if len(tokens) and int(tokens[-1]) == self._end else len(tokens)
        return self._form.read(self.decode(tokens[:cut]), tools)

    def action_tokens(self, action: Action, tools: Sequence[ToolSpec] = ()) -> TokenIds:
        if action.reasoning:
            raise RenderingError(f"the word renderer has no place for reasoning; got {action.reasoning!r}.")
        return joined([self._codec.encode(self._form.write(action, tools)), (self._end,)])

    def decode(self, tokens: TokenIds) -> str:
        return _spaced(self._codec.words(tokens))

    def _message(self, message: Message, tools: Sequence[ToolSpec]) -> tuple[int, ...]:
        if message.role == "assistant":
            text = self._form.write(Action(message.content, message.tool_calls), tools)
            return (self._act, *self._codec.encode(text), self._end)
        opening = self._system if message.role == "system" else self._observation
        return (opening, *self._codec.encode(message.content))


def _spaced(words: Sequence[str]) -> str:
    """Words joined as they are written: no space before `.` or `)`, none inside quotes and brackets."""
    text, glued, quote_open = "", True, False
    for word in words:
        closes = word in _CLOSERS or (word == '"' and quote_open)
        text += word if glued or closes else f" {word}"
        glued = word in _OPENERS or (word == '"' and not quote_open)
        if word == '"':
            quote_open = not quote_open
    return text
