"""The same as `arguments`, by msgspec, for an interpreter whose packages need another pydantic than ours.

As strict; the types are those that msgspec knows (no pydantic models), and one problem is told at a time.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    kind: Any
    default: Any
    note: str | None


class Mismatch(ValueError):
    """Arguments that do not fit, in words for the model."""


@dataclass(frozen=True, slots=True)
class Arguments:
    schema: Mapping[str, Any]
    model: type[msgspec.Struct]
    names: Sequence[str]

    def check(self, text: str) -> dict[str, Any]:
        """The keyword arguments that the JSON `text` stands for. Raises `Mismatch`."""
        try:
            checked = msgspec.json.decode(text, type=self.model, strict=True)
        except msgspec.ValidationError as error:
            what, _, place = str(error).partition(" - at ")
            where = place.strip("`").removeprefix("$").removeprefix(".")
            raise Mismatch(f"argument {where!r}: {what.lower()}" if where else what.lower()) from error
        return {name: getattr(checked, f"argument_{index}") for index, name in enumerate(self.names)}


def read(tool: str, parameters: Sequence[Parameter]) -> Arguments:
    """Raises `TypeError` where a type has no JSON schema."""
    fields: list[Any] = []
    rename: dict[str, str] = {}
    # Those without a default come first, as a Struct wants them; each is found again by its place.
    for index, parameter in sorted(enumerate(parameters), key=lambda pair: pair[1].default is not ...):
        kind = Annotated[parameter.kind, msgspec.Meta(description=parameter.note)] if parameter.note else parameter.kind
        field: tuple[Any, ...] = (f"argument_{index}", kind)
        if parameter.default is not ...:
            field = (*field, msgspec.field(default_factory=functools.partial(copy.deepcopy, parameter.default)))
        fields.append(field)
        rename[f"argument_{index}"] = parameter.name
    model = msgspec.defstruct(tool, fields, rename=rename, forbid_unknown_fields=True)
    whole = msgspec.json.schema(model)
    definitions = whole.pop("$defs", {})
    schema = definitions.pop(tool, {"type": "object", "properties": {}, "required": []})
    for parameter in parameters:
        if parameter.default is not ...:
            schema["properties"][parameter.name]["default"] = to_jsonable_python(parameter.default)
    if definitions:
        schema["$defs"] = definitions
    return Arguments(schema, model, [parameter.name for parameter in parameters])


def to_json(value: Any) -> bytes:
    """Raises `ValueError` for what has no JSON."""
    try:
        return msgspec.json.encode(value)
    except TypeError as error:
        raise ValueError(str(error)) from error


def to_jsonable_python(value: Any) -> Any:
    return msgspec.to_builtins(value)
