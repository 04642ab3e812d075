"""What a server's action schema asks for: the tools that a model sees, and its calls as the server's actions.

Three kinds of server: one that takes whole decisions (`serve-env`), one with tools of its own (OpenEnv's MCP
environments), and one with a single form of action, whose fields become the parameters of one tool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from agentrl import Action, EnvironmentFault, ToolCall, ToolSpec

LIST_TOOLS = {"type": "list_tools"}
DECISION = "act"
"The `type` of an action that is a whole decision of the model; `agentrl_openenv.served` takes it."

Kind: TypeAlias = Literal["decisions", "tools", "fields"]


@dataclass(frozen=True, slots=True)
class Interface:
    """How a server is acted on."""

    kind: Kind
    tools: tuple[ToolSpec, ...] = ()
    "Of the kind `fields`; the others list theirs when they are asked."
    fixed: Mapping[str, Any] | None = None
    "Fields with one allowed value, which the model is not asked for."

    def call(self, made: ToolCall) -> dict[str, Any]:
        """The server's action for one call."""
        if self.kind == "tools":
            return {"type": "call_tool", "tool_name": made.name, "arguments": dict(made.arguments)}
        return {**made.arguments, **(self.fixed or {})}


def interface_of(schema: Mapping[str, Any], tool: str) -> Interface:
    """`schema` is what GET /schema says of actions; `tool` is the name of the one tool where there is but one.

    Raises `EnvironmentFault` for actions that are no object with fields.
    """
    definitions = schema.get("$defs", {})
    fields = {
        name: inlined(field, definitions)
        for name, field in schema.get("properties", {}).items()
        if name != "metadata"  # of every action; for programs, not for a model
    }
    types = _values(fields.get("type", {}))
    if DECISION in types and "tool_calls" in fields:
        return Interface("decisions")
    if "call_tool" in types or types == ("list_tools",) or not fields:
        if schema.get("type") != "object":
            raise EnvironmentFault(f"the server's actions are {dict(schema)}; only objects with fields can be called.")
        return Interface("tools")
    fixed = {name: values[0] for name, field in fields.items() if len(values := _values(field)) == 1}
    asked = {name: field for name, field in fields.items() if name not in fixed}
    required = [name for name in schema.get("required", ()) if name in asked]
    parameters = {"type": "object", "properties": asked, "required": required, "additionalProperties": False}
    about = " ".join(str(schema.get("description", "")).partition("\n\n")[0].split())
    return Interface("fields", (ToolSpec(tool, about or "Do one action.", parameters),), fixed)


def decision(action: Action) -> dict[str, Any]:
    """A whole decision, words and calls, for a server that takes them."""
    calls = [{"name": made.name, "arguments": dict(made.arguments), "id": made.id} for made in action.tool_calls]
    return {"type": DECISION, "text": action.text, "tool_calls": calls}


def listed(observation: Mapping[str, Any]) -> tuple[ToolSpec, ...]:
    """The tools in a server's answer. Raises `EnvironmentFault` where there are none."""
    found: Sequence[Mapping[str, Any]] = observation.get("tools") or ()
    if not found:
        raise EnvironmentFault(f"the server lists no tools; its answer was {dict(observation)}.")
    return tuple(
        ToolSpec(
            str(tool["name"]),
            str(tool.get("description", "")),
            inlined(schema := tool.get("input_schema") or tool.get("inputSchema") or {}, schema.get("$defs", {})),
        )
        for tool in found
    )


def inlined(schema: Any, definitions: Mapping[str, Any], inside: tuple[str, ...] = ()) -> Any:
    """The schema without references and without titles, which cost a small model tokens and say nothing.

    What holds itself is any value from there on.
    """
    if isinstance(schema, list):
        return [inlined(part, definitions, inside) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        if name in inside or name not in definitions:
            return {}
        return inlined({**definitions[name], **_beside(schema)}, definitions, (*inside, name))
    return {
        key: {name: inlined(field, definitions, inside) for name, field in value.items()}
        if key == "properties"
        else inlined(value, definitions, inside)
        for key, value in schema.items()
        if key != "$defs" and not (key == "title" and isinstance(value, str))
    }


def _beside(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "$ref"}


def _values(field: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values that a field may have, where they are few."""
    return (field["const"],) if "const" in field else tuple(field.get("enum", ()))
