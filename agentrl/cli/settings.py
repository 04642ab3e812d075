"""`agentrl config`: what a recipe may say, and what one says once defaults and overrides are in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from agentrl import toml
from agentrl.config import Config, check_parts, dump_toml, find_recipe, load_config
from agentrl.errors import UnknownNameError, did_you_mean

_TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "array": "list"}
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<", "minItems": "items >="}


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of one key of a recipe."""

    name: str
    type: str
    default: str
    "As TOML; empty where there is none."
    allowed: str
    "Range or choices; empty where the type says all."
    description: str
    required: bool


def print_keys(name: str) -> None:
    keys = keys_of(name)
    if len(keys) == 1:
        (key,) = keys
        typer.echo(f"{key.name}  ({_facts(key)})\n  {key.description}")
        return
    width = max(len(key.name) for key in keys)
    for key in keys:
        typer.echo(f"{key.name.ljust(width)}  {_facts(key)}. {' '.join(key.description.split())}")


def print_config(recipe: str, overrides: Sequence[str], plugins: Sequence[str]) -> None:
    from agentrl.plugins import load_host

    config = load_config(recipe, overrides)
    host = load_host((*config.plugins, *plugins))
    check_parts(config, host, file=str(find_recipe(recipe)))
    typer.echo(dump_toml(config), nl=False)


def keys_of(name: str = "") -> tuple[Key, ...]:
    """One key, the keys of one section, or (empty name) all. Raises `UnknownNameError`."""
    schema = Config.model_json_schema()
    keys = tuple(_keys(schema, schema["$defs"], ""))
    chosen = tuple(k for k in keys if not name or k.name == name or k.name.startswith(f"{name}."))
    if not chosen:
        near = did_you_mean(name, [k.name for k in keys])
        raise UnknownNameError(f"a recipe has no key {name!r}.{near} `agentrl config explain` shows all.")
    return chosen


def _keys(section: Mapping[str, Any], definitions: Mapping[str, Any], prefix: str) -> list[Key]:
    found = []
    for name, field in section["properties"].items():
        shape, inner = _resolved(field, definitions)
        default = field.get("default")
        if inner in ("Part", "Reward", "World"):
            kind = "name in quotes, or table of name and options"
        else:
            kind = "section" if inner else _TYPES.get(shape.get("type", "string"), "text")
        found.append(
            Key(
                name=prefix + name,
                type=kind,
                default="" if kind == "section" else _shown(default),
                allowed=_allowed(shape),
                description=field.get("description") or shape.get("description", ""),
                required=name in section.get("required", ()),
            )
        )
        if kind == "section" or inner == "World":
            found += _keys(shape, definitions, f"{prefix}{name}.")
    return found


def _resolved(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The schema that says what a field holds, and the name of the model that it is, if it is one."""
    options = [field, *(option for option in field.get("anyOf", ()) if option.get("type") != "null")]
    for option in options:
        if "$ref" in option:
            name = option["$ref"].rpartition("/")[2]
            return definitions[name], name
    return options[-1], ""


def _allowed(shape: Mapping[str, Any]) -> str:
    if "enum" in shape:
        return "one of " + ", ".join(toml.quoted(choice) for choice in shape["enum"])
    if "const" in shape:
        return toml.quoted(shape["const"])
    return ", ".join(f"{sign} {shape[bound]:g}" for bound, sign in _BOUNDS.items() if bound in shape)


def _shown(default: Any) -> str:
    if default is None:
        return ""
    if isinstance(default, Mapping) and set(default) == {"name"}:
        default = default["name"]
    return toml.quoted(default)


def _facts(key: Key) -> str:
    default = "must be given" if key.required else f"default {key.default}" if key.default else "unset by default"
    parts = [key.type, key.allowed, "" if key.type == "section" and not key.required else default]
    return ", ".join(part for part in parts if part)
