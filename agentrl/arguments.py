"""What a tool's parameters accept, by pydantic: the JSON schema, and the check of what the model sends.

Checked strictly, as JSON: `"3"` is not an int. Needs pydantic 2; `arguments_plain` stands in where an environment's
own interpreter has another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic_core import to_json, to_jsonable_python

__all__ = ["Arguments", "Mismatch", "Parameter", "read", "to_json", "to_jsonable_python"]


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    kind: Any
    "Its annotation, resolved."
    default: Any
    "`...` where it has none."
    note: str | None


class Mismatch(ValueError):
    """Arguments that do not fit: one line for each problem, in words for the model."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))


@dataclass(frozen=True, slots=True)
class Arguments:
    schema: Mapping[str, Any]
    "As pydantic writes it, definitions apart."
    model: type[BaseModel]
    "One field per parameter, aliased to the parameter's name."

    def check(self, text: str) -> dict[str, Any]:
        """The keyword arguments that the JSON `text` stands for. Raises `Mismatch`."""
        try:
            checked = self.model.model_validate_json(text, strict=True)
        except ValidationError as error:
            raise Mismatch(_problems(error)) from error
        return {str(field.alias): getattr(checked, name) for name, field in self.model.model_fields.items()}


def read(tool: str, parameters: Sequence[Parameter]) -> Arguments:
    """Raises `TypeError` where a type has no JSON schema."""
    fields: dict[str, Any] = {}
    for index, parameter in enumerate(parameters):
        field = Field(parameter.default, alias=parameter.name, description=parameter.note)
        # Not the parameter's own name: `copy` or `schema` would shadow a method of the model.
        fields[f"argument_{index}"] = (parameter.kind, field)
    try:
        config = ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=False)
        model = create_model(tool, __config__=config, **fields)
        return Arguments(model.model_json_schema(by_alias=True), model)
    except PydanticUserError as error:
        raise TypeError(str(error).splitlines()[0]) from error


def _problems(error: ValidationError) -> list[str]:
    problems = []
    for problem in error.errors(include_url=False):
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "missing":
            problems.append(f"argument {place!r} is missing")
        elif problem["type"] == "extra_forbidden":
            problems.append(f"there is no argument {place!r}")
        else:
            shown = repr(problem["input"])
            shown = shown if len(shown) <= 80 else shown[:77] + "..."
            problems.append(f"argument {place!r} is {shown}: {problem['msg'].lower()}")
    return problems
