"""TOML text of plain values: reading one value of a command line, and writing a whole table.

What is written reads back as the same values. The standard library reads TOML but does not write it.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from agentrl.errors import ConfigError


def parse_value(text: str) -> Any:
    """The value of `key=text` on a command line: TOML, or a bare word taken as text."""
    try:
        table = tomllib.loads(f"value = {text}\n")
    except tomllib.TOMLDecodeError:
        if text[:1] in tuple("[{\"'"):
            raise ConfigError(
                f"{text!r} is neither a TOML value nor a bare word; check its brackets and quotes."
            ) from None
        return text
    # Dates are text here: no key is one, and a run may well be called 2026-01-01.
    value = table["value"]
    return value if len(table) == 1 and isinstance(value, str | int | float | list | dict) else text


def dump(table: Mapping[str, Any]) -> str:
    """A table as TOML: plain keys first, then its sections. None is left out, as TOML has no word for it."""
    return "\n".join(_lines(table, ())) + "\n"


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Tables within tables as dotted keys."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    lines = [f"{_key(k)} = {quoted(v)}" for k, v in table.items() if v is not None and not _is_section(v, path)]
    for name, value in table.items():
        if not _is_section(value, path):
            continue
        place = (*path, name)
        heading = ".".join(_key(part) for part in place)
        for section, mark in (
            [(value, f"[{heading}]")]
            if isinstance(value, Mapping)
            else [(element, f"[[{heading}]]") for element in value]
        ):
            lines += [*([""] if lines else []), mark, *_lines(section, place)]
    return lines


def _is_section(value: Any, path: tuple[str, ...]) -> bool:
    """Tables at the top get a heading of their own; deeper ones are written inline."""
    if path:
        return False
    if isinstance(value, Mapping):
        return True
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(v, Mapping) for v in value)


def quoted(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return repr(value)
        case str():
            # A JSON string is a TOML string once DEL is escaped.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case Mapping():
            return "{" + ", ".join(f"{_key(k)} = {quoted(v)}" for k, v in value.items() if v is not None) + "}"
        case Sequence():
            return "[" + ", ".join(quoted(v) for v in value) + "]"
    raise ConfigError(
        f"{value!r} of type {type(value).__name__} has no TOML form; numbers, text, booleans, lists and tables have "
        "one. Give one of these."
    )


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else quoted(key)
