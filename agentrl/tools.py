"""A tool is a typed function with a docstring: schema, validation and error text all come from it.

What the model sends is checked strictly and never repaired: `"3"` is not an int.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from agentrl.errors import PluginError, PolicyError
from agentrl.outcomes import unknown_tool
from agentrl.types import JSON, ToolSpec

if typing.TYPE_CHECKING:
    from agentrl.arguments import Arguments, Mismatch, Parameter, read, to_json, to_jsonable_python
else:
    try:
        from agentrl.arguments import Arguments, Mismatch, Parameter, read, to_json, to_jsonable_python
    except ImportError:
        # An environment's own interpreter, whose packages need another pydantic.
        from agentrl.arguments_plain import Arguments, Mismatch, Parameter, read, to_json, to_jsonable_python

Function = TypeVar("Function", bound=Callable[..., Any])

_MARK = "__agentrl_tool__"
_ARGUMENT_HEADERS = ("Args:", "Arguments:", "Parameters:")
_DATA = ("default", "enum", "const", "examples", "required")
"Keys of a schema whose values are data: a default may itself hold any key."


class ToolError(PolicyError):
    """Raised by a tool where the model is at fault. The model is told the text, and the step is a policy error."""


def tool(function: Function) -> Function:
    """Mark a method (or a function) as something that the model may call.

    The first lines of the docstring describe it; a line `name: text` describes the parameter `name`.
    """
    setattr(function, _MARK, True)
    return function


@dataclass(frozen=True, slots=True, eq=False)
class Tool:
    """A described tool: what the model sees, and the check of what it sends."""

    spec: ToolSpec
    function: Callable[..., Any]
    arguments: Arguments

    def validate(self, arguments: Mapping[str, JSON]) -> dict[str, Any]:
        """The keyword arguments of the call, as the annotations say. Raises `ToolError` in words for the model."""
        try:
            text = json.dumps(dict(arguments))
        except (TypeError, ValueError) as error:
            raise ToolError(f"{self.spec.name}: the arguments are not JSON: {error}.") from error
        try:
            return self.arguments.check(text)
        except Mismatch as error:
            raise ToolError(f"{self.spec.name}: {error}. Call it as {signature(self.spec)}.") from error


def is_tool(function: object) -> bool:
    return bool(getattr(function, _MARK, False))


@functools.lru_cache(maxsize=4096)
def describe(function: Callable[..., Any]) -> Tool:
    """Read the schema from annotations and docstring. Raises `PluginError` with file and line."""
    name = function.__name__
    description, notes = parse_docstring(inspect.getdoc(function) or "", _parameters(function))
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise _badly_written(function, f"has an annotation that cannot be resolved ({error})", "import it") from error
    parameters: list[Parameter] = []
    for parameter in _parameters(function).values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise _badly_written(function, f"takes {parameter}", "name each parameter; the model calls by name")
        if parameter.name not in hints:
            raise _badly_written(function, f"has no annotation for {parameter.name!r}", "write its type")
        default = ... if parameter.default is parameter.empty else parameter.default
        parameters.append(Parameter(parameter.name, hints[parameter.name], default, notes.get(parameter.name)))
    try:
        arguments = read(name, parameters)
        schema = _tidy(dict(arguments.schema))
    except TypeError as error:
        raise _badly_written(function, f"has a type without a JSON schema ({error})", "use JSON types") from error
    shown = {"type": "object", "properties": schema.get("properties", {}), "required": schema.get("required", [])}
    if "$defs" in schema:
        shown["$defs"] = schema["$defs"]
    return Tool(ToolSpec(name, description, shown), function, arguments)


def tools_of(owner: type) -> dict[str, Tool]:
    """The tools of a class by name, bases first, in the order in which they are written."""
    names = [name for base in reversed(owner.__mro__) for name in vars(base)]
    found = {name: getattr(owner, name) for name in names}
    return {name: describe(function) for name, function in found.items() if is_tool(function)}


def find_tool(tools: Mapping[str, Tool], name: str) -> Tool:
    """Raises `ToolError` in words for the model."""
    if name not in tools:
        raise ToolError(unknown_tool(name, tools))
    return tools[name]


def encode_result(value: object) -> str:
    """What a tool returned, as text: a str as it is, everything else as JSON. Raises `ValueError` where it cannot."""
    return value if isinstance(value, str) else to_json(value).decode()


def plain(value: object) -> JSON:
    """`value` as JSON values: tuples become lists, models and dataclasses dicts."""
    return to_jsonable_python(value)


def signature(spec: ToolSpec) -> str:
    """`go(direction: "north" | "south", steps: integer = 1)`: a call in one line, for people and error texts."""
    required = spec.parameters.get("required", [])
    parts = []
    for name, schema in spec.parameters.get("properties", {}).items():
        default = "" if name in required else f" = {json.dumps(schema.get('default'))}"
        parts.append(f"{name}: {_type_name(schema)}{default}")
    return f"{spec.name}({', '.join(parts)})"


def parse_docstring(text: str, parameters: Mapping[str, object] | Sequence[str]) -> tuple[str, dict[str, str]]:
    """The description, and the text of each line `name: text` (also below `Args:`, also `name (type): text`)."""
    pattern = re.compile(r"^\s*(?::param\s+)?(\w+)(?:\s*\([^)]*\))?\s*:\s*(.*)$")
    kept: list[str] = []
    notes: dict[str, str] = {}
    current: str | None = None
    depth = 0
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        match = pattern.match(line)
        if match and match[1] in parameters:
            current, depth = match[1], indent
            notes[current] = match[2].strip()
        elif current is not None and line.strip() and indent > depth:
            notes[current] = f"{notes[current]} {line.strip()}".strip()
        elif line.strip() not in _ARGUMENT_HEADERS:
            current = None
            kept.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip(), notes


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = dict(inspect.signature(function).parameters)
    first = next(iter(parameters), None)
    if first == "self":
        del parameters[first]
    return parameters


def _badly_written(function: Callable[..., Any], what: str, advice: str) -> PluginError:
    code = inspect.unwrap(function).__code__
    return PluginError(
        f"the tool {function.__qualname__} {what}, at {code.co_filename}:{code.co_firstlineno}. "
        f"Parameters of a tool are named and have JSON types: {advice}."
    )


def _type_name(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "anyOf" in schema:
        return " | ".join(_type_name(option) for option in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list[{_type_name(schema.get('items', {}))}]"
    if "properties" in schema:
        return "{" + ", ".join(f"{key}: {_type_name(value)}" for key, value in schema["properties"].items()) + "}"
    return str(schema.get("type", "any"))


def _tidy(schema: dict[str, Any]) -> dict[str, Any]:
    """Definitions inlined (a recursive one stays a reference) and generated titles dropped: the model reads this."""
    definitions = schema.pop("$defs", {})
    recursive: dict[str, None] = {}

    def schemas(node: Any, inside: tuple[str, ...]) -> Any:
        """`node`, a schema or a list of some, below the definitions called `inside`."""
        if isinstance(node, list):
            return [schemas(item, inside) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" not in node:
            return entries(node, inside)
        name = node["$ref"].rsplit("/", 1)[-1]
        beside = entries({key: value for key, value in node.items() if key != "$ref"}, inside)
        if name in inside:
            recursive.setdefault(name)
            return {"$ref": node["$ref"], **beside}
        return {**schemas(definitions[name], (*inside, name)), **beside}

    def entries(node: dict[str, Any], inside: tuple[str, ...]) -> dict[str, Any]:
        found = {}
        for key, value in node.items():
            if key == "title" or (key == "additionalProperties" and value is False):
                continue
            if key == "properties":
                # Its keys are names of the author's, `title` and `$ref` among them.
                found[key] = {name: schemas(inner, inside) for name, inner in value.items()}
            else:
                found[key] = value if key in _DATA else schemas(value, inside)
        return found

    tidy: dict[str, Any] = schemas(schema, ())
    if recursive:
        tidy["$defs"] = {name: schemas(definitions[name], (name,)) for name in recursive}
    return tidy
