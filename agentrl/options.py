"""The options of a part: which keys its factory takes, whether given values fit, and the part that is made of them.

A factory's signature is the schema; a parameter that is a dataclass is a table, and `**options` take any other key.
Values come from TOML or JSON, so they are checked strictly: no text is taken for a number.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import ErrorDetails

from agentrl.errors import AgentRLError, ConfigError, did_you_mean
from agentrl.toml import parse_value

_NAMED = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_WORDS = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text in quotes",
    "tuple_type": "a list [...]",
    "list_type": "a list [...]",
    "dict_type": "a table {...}",
    "dataclass_type": "a table {...}",
    "model_type": "a table {...} or, for a part, its name in quotes",
}
_FIELD = "option_"  # pydantic keeps names such as `schema` or `json` for itself


@dataclass(frozen=True, slots=True)
class Checked:
    """Options that were held against a factory."""

    values: Mapping[str, Any]
    "Converted to the annotated types (a list to a tuple, text to a path); empty where there are problems."
    problems: tuple[str, ...]
    "One line each; empty where everything fits."


def parse_options(words: Sequence[str]) -> dict[str, Any]:
    """`key=value` words as options; `key.sub=value` is an entry of a table.

    Raises `ConfigError` for a word without `=` and for a key given twice.
    """
    values: dict[str, Any] = {}
    for word in words:
        path, equals, value = word.partition("=")
        *tables, key = path.split(".")
        if not equals or not all(part.isidentifier() for part in (*tables, key)):
            raise ConfigError(f"{word!r} is no option. Write key=value, such as size=4.")
        place: Any = values
        for table in tables:
            place = place.setdefault(table, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{word!r}: {table} is {place!r}, which has no keys.")
        if key in place:
            raise ConfigError(f"{path} is given twice: {place[key]!r} and {value!r}. Give it once.")
        place[key] = parse_value(value)
    return values


def needed(factory: Callable[..., Any]) -> tuple[str, ...]:
    """The parameters without a default."""
    return tuple(name for name, p in _parameters(factory).items() if p.default is inspect.Parameter.empty)


def takes(factory: Callable[..., Any], name: str) -> bool:
    return name in _parameters(factory)


def build(
    factory: Callable[..., Any], options: Mapping[str, Any], *, supplied: Mapping[str, Any] | None = None, where: str
) -> Any:
    """What `factory` makes of `options`, checked and converted, and of what the run has `supplied`, passed as it is.

    `where` begins each line of the `ConfigError` that says which options do not fit, by the signature or by the
    factory's own `ValueError`. Errors of ours stay what they are.
    """
    checked = check_options(factory, options, offered=tuple(supplied or ()), where=where)
    if checked.problems:
        raise ConfigError("\n".join(checked.problems))
    try:
        return factory(**checked.values, **(supplied or {}))
    except ValueError as error:
        if isinstance(error, AgentRLError):
            raise
        raise ConfigError(f"{where} {error}") from error


def check_options(
    factory: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    offered: Collection[str] = (),
    beside: Collection[str] = (),
    where: str = "",
) -> Checked:
    """Hold `options` against the signature of `factory`; `offered` names what the run supplies where a recipe does not.

    A parameter without a default that is neither given nor offered is a problem, and so is an unknown option; the
    line about it also names the keys that may stand `beside` the options and are no option themselves.
    """
    parameters = _parameters(factory)
    hints = _hints(factory)
    fields: dict[str, Any] = {}
    for name, parameter in parameters.items():
        needed = parameter.default is inspect.Parameter.empty and name not in offered
        # Only what is given is checked: the other parameters may have types that pydantic does not know.
        fields[_FIELD + name] = (
            hints.get(name, Any) if name in options else Any,
            Field(... if needed else None, alias=name),
        )
    allowed = [name for name in parameters if name not in offered]
    extra: Literal["allow", "forbid"] = "allow" if _open_ended(factory) else "forbid"
    config = ConfigDict(extra=extra, strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)
    model: type[BaseModel] = create_model("Options", __config__=config, **fields)
    try:
        checked = model.model_validate_json(json.dumps(dict(options), default=str))
    except ValidationError as error:
        known = [*allowed, *beside]
        return Checked({}, tuple(problem(d, _known_at(d["loc"], known, hints), where) for d in error.errors()))
    values = {name: getattr(checked, _FIELD + name) for name in options if name in parameters}
    return Checked({**values, **(checked.model_extra or {})}, ())


def problem(detail: ErrorDetails, known: Collection[str], where: str) -> str:
    """One pydantic error as one line: the key and its value, what was allowed, where it stands."""
    *section, key = [str(part) for part in detail["loc"]] or [""]
    name = ".".join([*section, key])
    place = f"{where} " if where else ""
    match detail["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            allowed = f"Allowed: {', '.join(sorted(known))}." if known else "It takes no options."
            return f"{place}has no key {name!r}.{did_you_mean(key, known)} {allowed}"
        case "missing":
            return f"{place}needs a value for {name!r}."
        case _:
            return f"{place}{name} = {_shown(detail['input'])}: {_reason(detail)}."


def _reason(detail: ErrorDetails) -> str:
    """Pydantic's message in the words of a TOML file."""
    context = detail.get("ctx", {})
    if detail["type"] == "value_error":
        return str(context.get("error", detail["msg"])).rstrip(".")
    if detail["type"] == "literal_error":
        return f"must be one of {context['expected']}"
    if detail["type"] in _WORDS:
        return f"must be {_WORDS[detail['type']]}"
    words = detail["msg"].removeprefix("Input ").removeprefix("should be ")
    return f"must be {words[0].lower()}{words[1:]}" if words else "is not allowed"


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _known_at(loc: tuple[int | str, ...], parameters: Collection[str], hints: Mapping[str, Any]) -> Collection[str]:
    """The keys that were allowed beside the one at `loc`: a dataclass option has its own."""
    if len(loc) == 2:
        hint = hints.get(str(loc[0]))
        for kind in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(kind):
                return tuple(field.name for field in dataclasses.fields(kind))
    return parameters


def _parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return {name: p for name, p in _signature(factory).items() if p.kind in _NAMED}


def _open_ended(factory: Callable[..., Any]) -> bool:
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in _signature(factory).values())


def _signature(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(factory).parameters
    except ValueError:  # some built-in types have none
        return {}


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    """Annotations as types; one that cannot be evaluated (imported for type checkers only) accepts anything."""
    function = factory.__init__ if inspect.isclass(factory) else factory
    function = inspect.unwrap(function)
    if not inspect.isroutine(function):
        function = type(function).__call__
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):
        pass
    found: dict[str, Any] = {}
    namespace = getattr(function, "__globals__", {})
    for name, annotation in getattr(function, "__annotations__", {}).items():
        try:
            found[name] = eval(annotation, namespace) if isinstance(annotation, str) else annotation
        except (NameError, TypeError, AttributeError):
            found[name] = Any
    return found
