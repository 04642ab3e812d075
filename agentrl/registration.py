"""What makes an object a plugin: hooks by their right names, or environment classes that need none.

Everything wrong is a `PluginError` that names the plugin, its distribution and what was allowed.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any, TypeAlias

from agentrl import discovery
from agentrl.discovery import Origin
from agentrl.errors import PluginError, did_you_mean
from agentrl.hooks import HOOK_NAMES
from agentrl.venvs import OwnVenv

Factory = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Lazy:
    """A factory that is imported on first use, so that registering it costs nothing."""

    target: str
    "`module:attribute`"
    requires: tuple[str, ...] = ()
    "Optional modules that the target imports."
    extra: str = ""
    "The extra of the registering distribution that installs them."
    summary: str = ""
    programs: tuple[tuple[str, str], ...] = ()
    "Programs that it starts, each with the Debian package that brings it."

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.]+:[\w.]+", self.target):
            raise PluginError(f"Lazy target {self.target!r} is not of the form 'module:attribute'.")


Registered: TypeAlias = Factory | Lazy | OwnVenv
_WORLDS = "environments"
_BASES = {"agentrl.environment": "Env", "agentrl.endpoint.agent": "AgentEnv"}
"Classes that a file may derive from without a hook; who does has imported them."


def with_hooks(plugin: object, origin: Origin) -> object:
    """The plugin itself, or hooks around the `Env` classes that it is or holds: such a file needs no other code."""
    bases = tuple(getattr(sys.modules[home], name) for home, name in _BASES.items() if home in sys.modules)

    def is_world(value: object) -> bool:
        return inspect.isclass(value) and issubclass(value, bases) and value not in bases

    worlds: dict[str, object] = {}
    if is_world(plugin):
        name = origin.plugin if origin.version else _snake(origin.plugin)
        worlds = {name: plugin}
    elif isinstance(plugin, ModuleType) and not _hook_like(plugin):
        mine = [v for v in vars(plugin).values() if is_world(v) and getattr(v, "__module__", "") == plugin.__name__]
        worlds = {_snake(world.__name__): world for world in mine if not world.__name__.startswith("_")}
    if worlds:
        return SimpleNamespace(agentrl_environments=lambda: worlds)
    if not _hook_like(plugin):
        raise PluginError(
            f"the plugin {origin.plugin!r} of {origin.distribution} registers nothing: "
            "it needs an Env or AgentEnv class or functions such as agentrl_environments()."
        )
    _check_hook_names(plugin, origin)
    return plugin


def factories(hook: Callable[[], Any], kind: str, origin: Origin) -> dict[str, Registered]:
    """What one registration hook returns, checked."""
    what = f"agentrl_{kind} of {origin.plugin!r}"
    try:
        returned = hook()
    except Exception as error:
        raise PluginError(f"{what} raised {discovery.reason(error)}") from error
    if not isinstance(returned, Mapping):
        raise PluginError(f"{what} returned {returned!r}. Return a dict of name to factory.")
    for name, factory in returned.items():
        fits = callable(factory) or isinstance(factory, Lazy) or (isinstance(factory, OwnVenv) and kind == _WORLDS)
        if not isinstance(name, str) or not fits:
            raise PluginError(
                f"{what} registers {name!r} as {factory!r}; a name is text, a factory is callable or an agentrl.Lazy, "
                "or, of an environment, an agentrl.OwnVenv."
            )
    return dict(returned)


def _hook_like(plugin: object) -> list[str]:
    """Names that look like hooks: functions called `agentrl_*`, and whatever carries the `hookimpl` mark."""
    found = []
    for name in dir(plugin):
        value = getattr(plugin, name, None)
        if inspect.isroutine(value) and (name.startswith("agentrl_") or hasattr(value, "agentrl_impl")):
            found.append(name)
    return found


def _check_hook_names(plugin: object, origin: Origin) -> None:
    for name in _hook_like(plugin):
        if name not in HOOK_NAMES:
            raise PluginError(
                f"the plugin {origin.plugin!r} of {origin.distribution} has {name}(), which is no hook of agentrl."
                f"{did_you_mean(name, HOOK_NAMES)} Hooks: {', '.join(sorted(HOOK_NAMES))}."
            )


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
