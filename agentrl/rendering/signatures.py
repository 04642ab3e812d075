"""A tool's JSON schema in one line that a small model can read.

`book(room: integer, day: 'mon'|'tue', note?: string) - Book a room.` A 135M model follows such a line and one
example; a page of JSON schema costs ten times the tokens and is not followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentrl.types import JSON, ToolSpec


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    schema: Mapping[str, JSON]
    "References into `$defs` are resolved."
    required: bool

    @property
    def types(self) -> tuple[str, ...]:
        """JSON type names that the value may have; empty where the schema does not say."""
        return _types(self.schema)

    def words(self) -> str:
        """Its values, for the model: `integer`, `'mon'|'tue'`, `list of string`."""
        return _words(self.schema)


def parameters(tool: ToolSpec) -> tuple[Parameter, ...]:
    """In schema order, which is the order of positional forms."""
    properties = tool.parameters.get("properties", {})
    required = set(tool.parameters.get("required", ()))
    definitions = tool.parameters.get("$defs", {})
    return tuple(
        Parameter(name, _resolved(schema, definitions), name in required) for name, schema in properties.items()
    )


def signature(tool: ToolSpec) -> str:
    shown = []
    for parameter in parameters(tool):
        note = _one_line(str(parameter.schema.get("description", "")))
        mark = "" if parameter.required else "?"
        shown.append(f"{parameter.name}{mark}: {parameter.words()}" + (f" ({note})" if note else ""))
    description = _one_line(tool.description)
    return f"{tool.name}({', '.join(shown)})" + (f" - {description}" if description else "")


def example_arguments(tool: ToolSpec) -> dict[str, JSON]:
    """Values of the right type and of no meaning for the required parameters (for all where none is required)."""
    every = parameters(tool)
    wanted = [p for p in every if p.required] or list(every)
    return {p.name: _example(p.schema) for p in wanted}


def find_tool(tools: Sequence[ToolSpec], name: str) -> ToolSpec | None:
    return next((tool for tool in tools if tool.name == name), None)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _resolved(schema: Any, definitions: Mapping[str, Any]) -> Mapping[str, JSON]:
    if not isinstance(schema, Mapping):
        return {}
    reference = schema.get("$ref")
    if isinstance(reference, str):
        found = definitions.get(reference.rsplit("/", 1)[-1], {})
        return {**found, **{k: v for k, v in schema.items() if k != "$ref"}}
    return schema


def _types(schema: Mapping[str, JSON]) -> tuple[str, ...]:
    if "type" in schema:
        named = schema["type"]
        return (named,) if isinstance(named, str) else tuple(named)
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return tuple(dict.fromkeys(_type_of(value) for value in values))
    options = schema.get("anyOf") or schema.get("oneOf") or ()
    return tuple(dict.fromkeys(name for option in options for name in _types(option)))


def _type_of(value: JSON) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _words(schema: Mapping[str, JSON]) -> str:
    if "enum" in schema:
        return "|".join(repr(value) for value in schema["enum"])
    if "const" in schema:
        return repr(schema["const"])
    options = [o for o in (schema.get("anyOf") or schema.get("oneOf") or ()) if o.get("type") != "null"]
    if options:
        return "|".join(dict.fromkeys(_words(option) for option in options))
    types = [name for name in _types(schema) if name != "null"]
    if types == ["array"]:
        items = schema.get("items")
        return f"list of {_words(items)}" if isinstance(items, Mapping) and items else "list"
    return "|".join(types) or "any"


def _example(schema: Mapping[str, JSON]) -> JSON:
    if schema.get("enum"):
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    examples: dict[str, JSON] = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}
    return next((examples[name] for name in _types(schema) if name in examples), "...")
