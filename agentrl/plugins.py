"""The plugin host: finds plugins, keeps what they register, and builds parts by kind and name.

Registration happens once, at start. A broken installed plugin is recorded with its reason and never raises; a plugin
that the user names in so many words (`--plugin`, `host.register`) raises `PluginError`.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal

import pluggy

from agentrl import discovery, hooks, registration
from agentrl.discovery import Origin
from agentrl.errors import ConfigError, MissingDependencyError, PluginError, UnknownNameError, did_you_mean
from agentrl.registration import Factory, Lazy, Registered
from agentrl.venvs import OwnVenv, install_command

__all__ = ["Entry", "Host", "Lazy", "load_host", "singular"]

State = Literal["ok", "missing", "broken"]
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of `agentrl list`."""

    kind: str
    name: str
    distribution: str
    version: str
    state: State
    detail: str
    "What it is where the state is ok; what is missing or broken otherwise."
    install: str = ""
    "The command that brings what is missing."


@dataclass(frozen=True, slots=True)
class _Part:
    factory: Registered
    origin: Origin


class Host:
    """Everything that plugins registered. Use `load_host`; an empty `Host()` knows nothing, not even our own parts."""

    def __init__(self) -> None:
        self._manager = _Manager("agentrl")
        self._manager.add_hookspecs(hooks.Registration)
        self._manager.add_hookspecs(hooks.Events)
        self._parts: dict[str, dict[str, list[_Part]]] = {kind: {} for kind in hooks.KINDS}
        self._plugins: list[Entry] = []
        self._loaded: dict[tuple[str, str], Factory] = {}

    @property
    def events(self) -> Any:
        """The pluggy caller: `host.events.agentrl_checkpoint(folder=..., update=...)`."""
        return self._manager.hook

    def register(self, plugin: object, name: str = "") -> None:
        """Add a plugin by hand (a notebook, a test): a module, an object with hooks, or an `Env` class.

        Registered again under its name, as when a cell is run twice, it takes the place of its former self.
        Raises `PluginError` where it registers wrongly or takes a name that is taken.
        """
        named = name or getattr(plugin, "__name__", "") or f"{type(plugin).__name__} {len(self._plugins)}"
        origin = Origin(named, "registered by hand")
        self._forget(origin)
        self._admit(plugin, origin, may_clash=False)

    def factory(self, kind: str, name: str) -> Factory:
        """The callable that builds `name`. Raises `UnknownNameError`, `MissingDependencyError`, `PluginError`."""
        if (kind, name) not in self._loaded:
            part = self._find(kind, name)
            match part.factory:
                case Lazy():
                    self._loaded[kind, name] = _load(part, f"{singular(kind)} {name!r}")
                case OwnVenv():
                    self._loaded[kind, name] = part.factory.factory(name)
                case _:
                    self._loaded[kind, name] = part.factory
        return self._loaded[kind, name]

    def own_venv(self, name: str) -> OwnVenv:
        """What the environment `name` declares. Raises `ConfigError` where it has no virtual environment of its own."""
        found = self._find("environments", name).factory
        if not isinstance(found, OwnVenv):
            raise ConfigError(f"environment {name!r} runs with the packages that are installed here: nothing to do.")
        return found

    def check(
        self,
        kind: str,
        name: str,
        options: Mapping[str, Any],
        *,
        offered: Sequence[str] = (),
        beside: Sequence[str] = (),
        where: str = "",
    ) -> tuple[str, ...]:
        """What is wrong with `options` for the part, one line each, without building it; as `check_options`."""
        from agentrl.options import check_options

        factory = self.factory(kind, name)
        return check_options(factory, options, offered=offered, beside=beside, where=where).problems

    def create(
        self,
        kind: str,
        name: str,
        options: Mapping[str, Any] = NOTHING,
        *,
        given: Mapping[str, Any] = NOTHING,
        where: str = "",
    ) -> Any:
        """Build a part from recipe options and from what the run has to give.

        `options` are checked against the factory's signature. Of `given` (a model, a folder) the factory takes the
        names that its signature has and `options` does not set. `where` names section and file for the message.
        Raises `ConfigError` for an unknown or ill-typed option, and what `factory` raises.
        """
        from agentrl.options import build, takes

        factory = self.factory(kind, name)
        supplied = {key: value for key, value in given.items() if takes(factory, key) and key not in options}
        return build(factory, options, supplied=supplied, where=where or f"{singular(kind)} {name!r}")

    def entries(self, kind: str | None = None) -> tuple[Entry, ...]:
        """What is registered, by kind and name; kind "plugins" holds one entry a plugin, broken ones included."""
        if kind is not None and kind not in (*hooks.KINDS, "plugins"):
            raise _unknown_kind(kind)
        kinds = (*hooks.KINDS, "plugins") if kind is None else (kind,)
        return tuple(entry for k in kinds for entry in self._entries_of(k))

    def _entries_of(self, kind: str) -> Iterator[Entry]:
        if kind == "plugins":
            yield from self._plugins
            return
        for name, parts in sorted(self._parts[kind].items()):
            for part in parts:
                state, detail, install = _state(name, part)
                if len(parts) > 1:
                    state, detail, install = "broken", _clash(kind, name, parts), ""
                yield Entry(kind, name, part.origin.distribution, part.origin.version, state, detail, install)

    def _find(self, kind: str, name: str) -> _Part:
        if kind not in self._parts:
            raise _unknown_kind(kind)
        parts = self._parts[kind].get(name, [])
        if len(parts) > 1:
            raise PluginError(_clash(kind, name, parts))
        if not parts:
            broken = [entry.name for entry in self._plugins if entry.state == "broken"]
            hint = f" Broken plugins: {', '.join(broken)}; `agentrl list plugins` says why." if broken else ""
            raise UnknownNameError(
                f"no {singular(kind)} is called {name!r}.{did_you_mean(name, self._parts[kind])} "
                f"`agentrl list {kind}` shows all.{hint}"
            )
        return parts[0]

    def _admit(self, plugin: object, origin: Origin, *, may_clash: bool) -> None:
        plugin = registration.with_hooks(plugin, origin)
        if any(known is plugin for _, known in self._manager.list_name_plugin()):
            return  # installed, and named by the user as well
        key = f"{origin.distribution}:{origin.plugin}"
        try:
            self._manager.register(plugin, key)
            found = {kind: self._factories(plugin, kind, origin) for kind in hooks.KINDS}
            for kind, parts in found.items():
                for name, factory in parts.items():
                    others = [part for part in self._parts[kind].get(name, []) if part.factory != factory]
                    if others and not may_clash:
                        raise PluginError(_clash(kind, name, [*others, _Part(factory, origin)]))
        except (pluggy.PluginValidationError, ValueError, PluginError) as error:
            if self._manager.get_plugin(key) is plugin:
                self._manager.unregister(name=key)
            if isinstance(error, PluginError):
                raise
            raise PluginError(f"the plugin {origin.plugin!r}: {' '.join(str(error).split())}") from error
        for kind, parts in found.items():
            for name, factory in parts.items():
                owners = self._parts[kind].setdefault(name, [])
                if may_clash or all(part.factory != factory for part in owners):
                    owners.append(_Part(factory, origin))
        names = ", ".join(f"{len(parts)} {kind}" for kind, parts in found.items() if parts) or "event hooks only"
        self._plugins.append(Entry("plugins", origin.plugin, origin.distribution, origin.version, "ok", names))

    def _forget(self, origin: Origin) -> None:
        key = f"{origin.distribution}:{origin.plugin}"
        if not self._manager.has_plugin(key):
            return
        self._manager.unregister(name=key)
        for parts in self._parts.values():
            for name in [name for name, owners in parts.items() if any(part.origin == origin for part in owners)]:
                parts[name] = [part for part in parts[name] if part.origin != origin]
                if not parts[name]:
                    del parts[name]
        self._loaded.clear()
        self._plugins = [p for p in self._plugins if (p.distribution, p.name) != (origin.distribution, origin.plugin)]

    def _factories(self, plugin: object, kind: str, origin: Origin) -> dict[str, Registered]:
        found: dict[str, Registered] = {}
        for implementation in getattr(self._manager.hook, f"agentrl_{kind}").get_hookimpls():
            if implementation.plugin is plugin:
                found |= registration.factories(implementation.function, kind, origin)
        return found


def load_host(extra: Sequence[str] = ()) -> Host:
    """A host with every installed plugin and those named in `extra` (`path.py` or `a.module`)."""
    host = Host()
    for found in discovery.installed():
        failure = found.failure
        if not failure:
            try:
                host._admit(found.plugin, found.origin, may_clash=True)
            except PluginError as error:
                failure = str(error)
        if failure:
            origin = found.origin
            host._plugins.append(
                Entry("plugins", origin.plugin, origin.distribution, origin.version, "broken", failure)
            )
    for target in extra:
        found = discovery.named(target)
        host._admit(found.plugin, found.origin, may_clash=False)
    return host


def singular(kind: str) -> str:
    """`environments` to `environment`, for messages."""
    words = kind.replace("_", " ")
    for plural, one in (("ies", "y"), ("xes", "x"), ("sses", "ss"), ("s", "")):
        if words.endswith(plural):
            return words.removesuffix(plural) + one
    return words


class _Manager(pluggy.PluginManager):
    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        """A function with the name of a hook is that hook, with or without `@hookimpl`."""
        marked = super().parse_hookimpl_opts(plugin, name)
        if marked is None and name in hooks.HOOK_NAMES and inspect.isroutine(getattr(plugin, name, None)):
            return {}
        return marked


def _load(part: _Part, what: str) -> Factory:
    lazy = part.factory
    assert isinstance(lazy, Lazy)
    module, _, attribute = lazy.target.partition(":")
    missing = discovery.missing_modules(lazy.requires)
    try:
        if missing:
            raise ModuleNotFoundError(name=missing[0])
        loaded: Any = import_module(module)
        for step in attribute.split("."):
            loaded = getattr(loaded, step)
    except ImportError as error:
        if not missing and (error.name or "").partition(".")[0] not in lazy.requires:
            raise PluginError(
                f"{what} of {part.origin.distribution} cannot be imported: {discovery.reason(error)}"
            ) from error
        needs = ", ".join(missing or (str(error.name),))
        command = part.origin.install_command(lazy.extra, missing or lazy.requires)
        raise MissingDependencyError(f"{what} needs {needs}, which is not installed. Run: {command}") from error
    except Exception as error:
        raise PluginError(
            f"{what} of {part.origin.distribution} cannot be imported: {discovery.reason(error)}"
        ) from error
    if not callable(loaded):
        raise PluginError(f"{what} of {part.origin.distribution}: {lazy.target} is {loaded!r}, which is not callable.")
    return loaded  # type: ignore[no-any-return]


def _state(name: str, part: _Part) -> tuple[State, str, str]:
    if isinstance(part.factory, OwnVenv):
        if part.factory.ready:
            return "ok", part.factory.summary, ""
        what = part.factory.summary or ", ".join(part.factory.requirements)
        return "missing", f"needs a virtual environment of its own: {what}", install_command(name)
    if not isinstance(part.factory, Lazy):
        return "ok", _summary(part.factory), ""
    missing = discovery.missing_modules(part.factory.requires)
    commands = [part.origin.install_command(part.factory.extra, missing)] if missing else []
    programs = [(name, package) for name, package in part.factory.programs if shutil.which(name) is None]
    commands += [f"apt-get install {' '.join(package for _, package in programs)}"] if programs else []
    if commands:
        needs = ", ".join([*missing, *(name for name, _ in programs)])
        return "missing", f"needs {needs}", " && ".join(commands)
    return "ok", part.factory.summary, ""


def _summary(factory: Factory) -> str:
    return (inspect.getdoc(factory) or "").partition("\n")[0]


def _clash(kind: str, name: str, parts: Sequence[_Part]) -> str:
    owners = " and ".join(f"{part.origin.distribution} (plugin {part.origin.plugin!r})" for part in parts)
    return f"the {singular(kind)} {name!r} is registered by {owners}. Uninstall or rename one."


def _unknown_kind(kind: str) -> UnknownNameError:
    return UnknownNameError(
        f"there is no kind {kind!r}.{did_you_mean(kind, hooks.KINDS)} Kinds: {', '.join(hooks.KINDS)}, plugins."
    )
