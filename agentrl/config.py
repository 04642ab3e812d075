"""From a recipe, by path or by name, and overrides to the config of a run; and back to TOML.

All problems of a recipe are told at once, each with its section and what was allowed.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agentrl import toml
from agentrl.errors import ConfigError, PluginError, UnknownNameError, did_you_mean
from agentrl.options import problem
from agentrl.plugins import Host
from agentrl.sections import Config, Part, Reward

__all__ = ["Config", "Part", "check_parts", "dump_toml", "find_recipe", "load_config", "read_reward", "recipes"]

OFFERED: Mapping[str, tuple[str, ...]] = {
    "engines": (
        "model",
        "model_path",
        "log_folder",
        "lock",
        "device",
        "dtype",
        "max_context",
        "max_sequences",
        "version",
    ),
    "methods": ("host",),
    "reward_models": ("engine", "renderer", "folder", "model_path", "device"),
    "samplers": ("tasks", "seed"),
    "trackers": ("folder",),
}
"""What a run gives to the factories of a kind where the recipe does not, so that no recipe needs to."""


def load_config(recipe: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a recipe and set `key.sub=value` overrides on top. Raises `ConfigError` with every problem in it.

    Parts and their options are checked by `check_parts`, which needs the plugins.
    """
    path = find_recipe(recipe)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from None
    table.setdefault("name", path.stem)
    for override in overrides:
        _override(table, override)
    _name_parts(table, Config)
    try:
        return Config.model_validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        lines = [line for detail in error.errors() for line in _lines(detail)]
        where = f"{path} with {' '.join(overrides)}" if overrides else str(path)
        raise ConfigError(_together(where, lines)) from None


def check_parts(config: Config, host: Host, *, file: str = "") -> None:
    """Hold every named part and its options against the plugins. Raises `ConfigError` with every problem in it.

    A missing optional package is no problem of the recipe: `MissingDependencyError` is raised as it is.
    """
    problems: list[str] = []
    for place, kind, part in config.parts():
        try:
            problems += _misfits(host, kind, part, place)
        except (UnknownNameError, PluginError) as error:
            problems.append(f"{place}: {error}")
    if problems:
        raise ConfigError(_together(file or f"the recipe {config.name!r}", problems))


def read_reward(host: Host, table: Mapping[str, Any]) -> Reward:
    """A reward model as a table of a recipe names it. Raises `ConfigError` with every problem in it."""
    try:
        reward = Reward.model_validate(table)
    except ValidationError as error:
        lines = [problem(detail, Reward.model_fields, "the reward") for detail in error.errors()]
        raise ConfigError("\n".join(lines)) from None
    if problems := _misfits(host, "reward_models", reward, f"the reward {reward.name!r}"):
        raise ConfigError("\n".join(problems))
    return reward


def _misfits(host: Host, kind: str, part: Part, where: str) -> tuple[str, ...]:
    beside = [key for key in type(part).model_fields if key != "name"]
    offered = OFFERED.get(kind, ())
    return host.check(kind, part.name, part.options, offered=offered, beside=beside, where=where)


def dump_toml(config: Config) -> str:
    """The resolved config: every key, defaults included. `load_config` of it gives an equal config."""
    return toml.dump(config.model_dump(mode="json"))


def recipes() -> dict[str, Path]:
    """The recipes that a name finds: those of the working folder, of the checkout, and packaged ones."""
    package = Path(__file__).resolve().parent
    folders = (package / "recipes", package.parent / "recipes", Path("recipes"))
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}


def find_recipe(recipe: str | Path) -> Path:
    path = Path(recipe)
    if path.is_file():
        return path
    known = recipes()
    if str(recipe) in known:
        return known[str(recipe)]
    if path.suffix == ".toml" or len(path.parts) > 1:
        near = did_you_mean(path.stem, known)
        raise ConfigError(f"there is no recipe file {str(recipe)!r} (looked in {Path.cwd()}).{near}")
    raise UnknownNameError(
        f"no recipe is called {str(recipe)!r}.{did_you_mean(str(recipe), known)} "
        f"Recipes: {', '.join(sorted(known)) or 'none'}. A path to a TOML file works too."
    )


def _override(table: dict[str, Any], override: str) -> None:
    """Set `key.sub=value`; a part written as a bare name becomes a table when an option of it is set."""
    name, equals, text = override.partition("=")
    path = name.strip().split(".")
    if not equals or not all(path):
        raise ConfigError(f"{override!r} is not an override; write key.sub=value, such as training.batches=20.")
    place: Any = table
    for depth, key in enumerate(path[:-1]):
        inner = _at(place, key, override)
        if isinstance(inner, str):
            inner = {"name": inner}
        if inner is None:
            inner = {}
        if not isinstance(inner, dict | list):
            raise ConfigError(f"{override!r}: {'.'.join(path[: depth + 1])} is {inner!r}, which has no keys.")
        place[int(key) if isinstance(place, list) else key] = inner
        place = inner
    _at(place, path[-1], override)
    place[int(path[-1]) if isinstance(place, list) else path[-1]] = toml.parse_value(text.strip())


def _name_parts(table: dict[str, Any], section: type[BaseModel]) -> None:
    """Options of a part without its name belong to the default one."""
    for key, field in section.model_fields.items():
        inner = table.get(key)
        if not isinstance(inner, dict):
            continue
        if isinstance(field.default, Part):
            inner.setdefault("name", field.default.name)
        elif (below := _model_in(field.annotation)) is not None and not issubclass(below, Part):
            _name_parts(inner, below)


def _at(place: dict[str, Any] | list[Any], key: str, override: str) -> Any:
    if isinstance(place, dict):
        return place.get(key)
    if not key.isdecimal() or int(key) >= len(place):
        raise ConfigError(f"{override!r}: {key!r} is no place in a list of {len(place)}; places count from 0.")
    return place[int(key)]


def _lines(detail: ErrorDetails) -> list[str]:
    """One pydantic error in the words of the file: section in brackets, then key."""
    if not detail["loc"]:
        return str(detail.get("ctx", {}).get("error", detail["msg"])).splitlines()
    first, *rest = detail["loc"]
    field = Config.model_fields.get(str(first))
    section = _model_in(field.annotation) if field else None
    if section is None or (not rest and detail["type"] != "missing"):
        return [problem(detail, Config.model_fields, "the top level" if detail["type"] == "extra_forbidden" else "")]
    if not rest:
        return [f"[{first}] is missing; {_purpose(section)}"]
    within: ErrorDetails = {**detail, "loc": tuple(rest)}
    return [problem(within, section.model_fields, f"[{first}]")]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _purpose(section: type[BaseModel]) -> str:
    return "give it " + ("a name and options." if issubclass(section, Part) else "the keys it needs.")


def _together(what: str, problems: Sequence[str]) -> str:
    if len(problems) == 1:
        return f"{what}: {problems[0]}"
    return "\n".join([f"{what} has {len(problems)} problems:", *(f"  {line}" for line in problems)])
