"""The plain-text form for small models: `go north` is a call, `say I am done` an answer.

One line: the tool's name, then its values in schema order. A value that is not a single word stands in double
quotes (backslash escapes a quote); `_` leaves an optional value out; a value that is not text is written as JSON.
Reading never repairs: anything else is `Action.error`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentrl.errors import PolicyError, RenderingError
from agentrl.rendering.signatures import Parameter, find_tool, parameters
from agentrl.types import JSON, Action, ToolCall, ToolSpec

ANSWER = "say"
OMITTED = "_"
_WORD = re.compile(r'[^\s"]+')
# Written bare; lone punctuation is quoted, because a word-level tokenizer would glue it to its neighbor.
_BARE = re.compile(r'[^\s"]*[^\s".,!?;:()\[\]][^\s"]*')
_QUOTED = re.compile(r'"((?:\\.|[^"\\])*)"', re.DOTALL)
_NUMBER = re.compile(r"-?\d{1,300}(\.\d{1,300})?([eE][+-]?\d{1,3})?")
_TEXT = Parameter("", {"type": "string"}, True)


@dataclass(frozen=True, slots=True)
class _Value:
    text: str
    quoted: bool


class Plain:
    """A tool that is itself called `say` wins over the answer."""

    name = "plain"

    def write(self, action: Action, tools: Sequence[ToolSpec]) -> str:
        if not action.tool_calls:
            return f"{ANSWER} {action.text}".strip()
        if action.text or len(action.tool_calls) > 1:
            raise RenderingError(
                f"the plain form holds one call and no text; the action has {len(action.tool_calls)} calls and "
                f"text {action.text!r}. Give one call an action."
            )
        call = action.tool_calls[0]
        tool = find_tool(tools, call.name)
        if tool is None:  # without a schema the order is the caller's
            return " ".join([call.name, *(_write_value(value, _TEXT) for value in call.arguments.values())])
        return " ".join([call.name, *_write_values(tool, call.arguments)])

    def read(self, text: str, tools: Sequence[ToolSpec]) -> Action:
        text = text.strip()
        first, rest = (*text.split(None, 1), "", "")[:2]
        tool = find_tool(tools, first)
        if tool is None:
            if first == ANSWER:
                return Action(rest.strip())
            known = ", ".join(tool.name for tool in tools) or "none"
            start = f"'{first[:40]}' is no tool" if first else "The answer is empty"
            return Action(text, error=f"{start}. Tools: {known}. Write a tool with its values, or {ANSWER} and a text.")
        try:
            return Action(tool_calls=(ToolCall(tool.name, _read_values(tool, _values(rest))),))
        except PolicyError as mistake:
            return Action(text, error=f"{mistake} Write: {_form(tool)}")

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        lines = []
        for tool in tools:
            description = " ".join(tool.description.split())
            lines.append(_form(tool) + (f" - {description}" if description else ""))
        return "Answer with one line, one of:\n" + "\n".join([*lines, f"{ANSWER} <text> - Answer the user."])


def _form(tool: ToolSpec) -> str:
    """`book <room: integer> [note: string]`"""
    shown = [f"{p.name}: {p.words()}" for p in parameters(tool)]
    marks = ["<>" if p.required else "[]" for p in parameters(tool)]
    return " ".join([tool.name, *(f"{mark[0]}{text}{mark[1]}" for text, mark in zip(shown, marks, strict=True))])


def _write_values(tool: ToolSpec, arguments: Mapping[str, JSON]) -> list[str]:
    known = parameters(tool)
    if unknown := sorted(set(arguments) - {p.name for p in known}):
        raise RenderingError(
            f"{tool.name} has no parameter {unknown[0]!r}; it has {', '.join(p.name for p in known) or 'none'}."
        )
    written = [_write_value(arguments[p.name], p) if p.name in arguments else OMITTED for p in known]
    while written and written[-1] == OMITTED:
        written.pop()
    return written


def _write_value(value: JSON, parameter: Parameter) -> str:
    if not isinstance(value, str):
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as problem:
            raise RenderingError(f"the value {value!r} is not JSON ({problem}).") from None
        return text if _WORD.fullmatch(text) else _quoted(text)
    bare = _BARE.fullmatch(value) and value != OMITTED
    if bare and _reads_as(parameter, _Value(value, quoted=False)) == (value,):
        return value
    return _quoted(value)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _values(text: str) -> list[_Value]:
    found, position = [], 0
    while position < len(text):
        if text[position].isspace():
            position += 1
        elif text[position] == '"':
            match = _QUOTED.match(text, position)
            if match is None:
                raise PolicyError("A quote is opened and never closed.")
            found.append(_Value(re.sub(r"\\(.)", r"\1", match[1], flags=re.DOTALL), quoted=True))
            position = match.end()
        else:
            match = _WORD.match(text, position)
            assert match is not None  # neither space nor quote
            found.append(_Value(match[0], quoted=False))
            position = match.end()
    return found


def _read_values(tool: ToolSpec, values: Sequence[_Value]) -> dict[str, JSON]:
    known = parameters(tool)
    if len(values) > len(known):
        raise PolicyError(f"{tool.name} takes {len(known)} values, not {len(values)} (quote a value of several words).")
    arguments: dict[str, JSON] = {}
    for position, parameter in enumerate(known):
        value = values[position] if position < len(values) else _Value(OMITTED, quoted=False)
        if value == _Value(OMITTED, quoted=False):
            if parameter.required:
                raise PolicyError(f"{tool.name} needs {parameter.name}.")
            continue
        read = _reads_as(parameter, value)
        if not read:
            raise PolicyError(f"{parameter.name} of {tool.name} is {parameter.words()}, not '{value.text[:40]}'.")
        arguments[parameter.name] = read[0]
    return arguments


def _reads_as(parameter: Parameter, value: _Value) -> tuple[JSON, ...]:
    """The value as the first of the parameter's types that fits, in a 1-tuple; empty where none does."""
    types = parameter.types or ("string",)
    # A quoted value is text where text is allowed: "5" is a string for `int | str`, 5 is a number.
    if value.quoted and "string" in types:
        return (value.text,)
    for name in [t for t in types if t != "string"]:
        if read := _literal(name, value.text):
            return read
    return (value.text,) if "string" in types else ()


def _literal(type_name: str, text: str) -> tuple[JSON, ...]:
    if type_name == "integer":
        return (int(text),) if re.fullmatch(r"-?\d{1,300}", text) else ()
    if type_name == "number":
        if not _NUMBER.fullmatch(text):
            return ()
        number = float(text)
        return (number,) if math.isfinite(number) else ()
    if type_name in ("boolean", "null"):
        words: dict[str, JSON] = {"true": True, "false": False} if type_name == "boolean" else {"null": None}
        return (words[text],) if text in words else ()
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return ()
    return (value,) if isinstance(value, list if type_name == "array" else dict) else ()


def _no_constant(name: str) -> JSON:
    raise ValueError(name)  # NaN and Infinity are Python's, not JSON's
