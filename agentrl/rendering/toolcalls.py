"""JSON tool-call formats: how a call is written, and how sampled text is read back.

Reading never repairs: a call that is not exactly in its form becomes `Action.error`, in words for the model, with
the right form; none of the answer's calls is then passed on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

from agentrl.errors import PolicyError, RenderingError
from agentrl.rendering.signatures import example_arguments, find_tool, signature
from agentrl.types import JSON, Action, ToolCall, ToolSpec


class ToolCallFormat(Protocol):
    name: str

    def write(self, action: Action, tools: Sequence[ToolSpec]) -> str:
        """The text of an assistant turn. Raises `RenderingError` for an action that this form cannot express."""
        ...

    def read(self, text: str, tools: Sequence[ToolSpec]) -> Action:
        """The action of a turn's text; `Action.error` where it is malformed."""
        ...

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        """What the system prompt says about the tools and how to call them."""
        ...


class Hermes:
    """`<tool_call>` blocks with JSON inside, as Hermes and Qwen write them; text around them is kept."""

    name = "hermes"
    opening = "<tool_call>"
    closing = "</tool_call>"

    def write(self, action: Action, tools: Sequence[ToolSpec]) -> str:
        blocks = [self._block(call.name, call.arguments) for call in action.tool_calls]
        return "\n".join([action.text, *blocks] if action.text else blocks)

    def read(self, text: str, tools: Sequence[ToolSpec]) -> Action:
        outside, calls = [], []
        rest = text
        try:
            while (start := rest.find(self.opening)) >= 0:
                outside.append(rest[:start])
                body, closed, rest = rest[start + len(self.opening) :].partition(self.closing)
                if not closed:
                    raise PolicyError(f"The tool call has no closing {self.closing}.")
                calls.append(_call(body.strip(), "arguments"))
            if self.closing in "".join([*outside, rest]):
                raise PolicyError(f"There is a {self.closing} without {self.opening} before it.")
        except PolicyError as mistake:
            return Action(text.strip(), error=f"{mistake} {self._form(text, tools)}")
        parts = [part.strip() for part in [*outside, rest]]
        return Action("\n".join(part for part in parts if part), tuple(calls))

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        lines = "\n".join(signature(tool) for tool in tools)
        example = self._block(tools[0].name, example_arguments(tools[0]))
        return f"Tools:\n{lines}\n\nTo use a tool, answer like this:\n{example}"

    def _block(self, name: str, arguments: Any) -> str:
        # Escaped, because a closing tag inside a value would end the block; it is the same JSON.
        body = _json({"name": name, "arguments": dict(arguments)}).replace(self.closing, f"\\u003c{self.closing[1:]}")
        return f"{self.opening}\n{body}\n{self.closing}"

    def _form(self, text: str, tools: Sequence[ToolSpec]) -> str:
        tool = _meant(text, tools)
        if tool is None:
            return f'Write a call as:\n{self.opening}\n{{"name": ..., "arguments": {{...}}}}\n{self.closing}'
        return f"Write a call as:\n{self._block(tool.name, example_arguments(tool))}"


class LlamaJSON:
    """One bare JSON object is a call, as Llama 3 writes it; anything that does not start with `{` is an answer."""

    name = "llama"

    def write(self, action: Action, tools: Sequence[ToolSpec]) -> str:
        if not action.tool_calls:
            return action.text
        if action.text or len(action.tool_calls) > 1:
            raise RenderingError(
                f"the llama form holds one call and no text; the action has {len(action.tool_calls)} calls and "
                f"text {action.text!r}. Use the hermes form, or one call an action."
            )
        call = action.tool_calls[0]
        return _json({"name": call.name, "parameters": dict(call.arguments)})

    def read(self, text: str, tools: Sequence[ToolSpec]) -> Action:
        text = text.strip()
        if not text.startswith("{"):
            return Action(text)
        try:
            return Action(tool_calls=(_call(text, "parameters"),))
        except PolicyError as mistake:
            tool = _meant(text, tools)
            form = self._example(tool) if tool else '{"name": ..., "parameters": {...}}'
            return Action(text, error=f"{mistake} Write a call as: {form}")

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        lines = "\n".join(signature(tool) for tool in tools)
        return f"Tools:\n{lines}\n\nTo use a tool, answer like this:\n{self._example(tools[0])}"

    def _example(self, tool: ToolSpec) -> str:
        return _json({"name": tool.name, "parameters": example_arguments(tool)})


def _json(value: JSON) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as problem:
        raise RenderingError(f"the tool call {value!r} is not JSON ({problem}); arguments are JSON values.") from None


def _call(body: str, key: str) -> ToolCall:
    """The call that a JSON object with exactly `name` and `key` stands for. Raises `PolicyError`."""
    try:
        value = json.loads(body, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as problem:
        raise PolicyError(f"The tool call is not valid JSON: {problem.msg} at character {problem.pos}.") from None
    except PolicyError:
        raise
    except (ValueError, RecursionError):  # a number of 5,000 digits; ten thousand brackets
        raise PolicyError("The tool call is not usable JSON: a number is too long or the nesting too deep.") from None
    if not isinstance(value, dict):
        raise PolicyError(f"The tool call is a JSON {_kind(value)}, not an object.")
    name, arguments = value.get("name"), value.get(key)
    if not isinstance(name, str) or not name:
        raise PolicyError('The tool call has no "name" with a tool\'s name.')
    if key not in value:
        raise PolicyError(f'The tool call has no "{key}".')
    if not isinstance(arguments, dict):
        raise PolicyError(f'"{key}" of the tool call is a {_kind(arguments)}, not an object.')
    if extra := sorted(set(value) - {"name", key}):
        raise PolicyError(f'The tool call has the unknown key "{extra[0]}"; only "name" and "{key}" are allowed.')
    return ToolCall(name, arguments)


def _object(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise PolicyError(f'The tool call has the key "{twice}" twice.')
    return found


def _no_constant(name: str) -> JSON:
    raise PolicyError(f"The tool call is not valid JSON: {name} is not a JSON number.")


def _kind(value: JSON) -> str:
    if value is None:
        return "null"
    kinds = {bool: "boolean", int: "number", float: "number", str: "string", list: "list", dict: "object"}
    return kinds[type(value)]


def _meant(text: str, tools: Sequence[ToolSpec]) -> ToolSpec | None:
    """The tool whose form the error message shows: the first one that the text names, else the first."""
    named = [(text.find(f'"{tool.name}"'), tool.name) for tool in tools if f'"{tool.name}"' in text]
    return find_tool(tools, min(named)[1]) if named else next(iter(tools), None)
