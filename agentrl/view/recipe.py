"""The settings of a run as the page lists them: every key with its default, changed ones told apart.

Read from the file that the run wrote, not through today's schema: an old run can be looked at.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from agentrl.sections import Config, Part
from agentrl.toml import flat
from agentrl.types import JSON
from agentrl.view.shapes import Setting


def read_recipe(path: Path) -> dict[str, Any]:
    """Empty where there is none, or none that can be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def settings_of(
    told: Mapping[str, Any], baseline: Mapping[str, Any] | None, defaults: Mapping[str, JSON]
) -> list[Setting]:
    """In the order of `told`; a key that only `baseline` has comes last. Without defaults nothing has changed."""
    values, other = flat(told), flat(baseline or {})
    keys = [*values, *(key for key in other if key not in values)]
    return [
        Setting(
            key=key,
            value=values.get(key),
            default=defaults.get(key),
            changed=bool(defaults) and key in values and key != "name" and values[key] != defaults.get(key),
            baseline=other.get(key),
        )
        for key in keys
    ]


def recipe_defaults() -> dict[str, JSON]:
    """Of every key that has one."""
    return flat(_default_table(Config))


def _default_table(section: type[BaseModel]) -> dict[str, Any]:
    """What the keys of a section are where a recipe says nothing; of an optional section, what it begins with."""
    found: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        inner = [kind for kind in (field.annotation, *get_args(field.annotation)) if _is_section(kind)]
        if inner:
            found[name] = _default_table(inner[0])
        elif not field.is_required() and field.default is not None:
            found[name] = field.default.model_dump() if isinstance(field.default, Part) else _listed(field.default)
    return found


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel) and not issubclass(kind, Part)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
