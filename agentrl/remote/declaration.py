"""What an environment says of itself before it is played: tools, limits, abilities, and where its code stands.

Plain data that survives JSON: the driver of an environment that it cannot import knows nothing else of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from agentrl.blame import codes_of, is_own, source_of
from agentrl.protocols import Environment
from agentrl.types import ToolSpec

ABILITIES = ("grade", "snapshot", "restore", "oracle", "demonstrate", "cheats")
"Methods that an environment may or may not offer."
_SOURCES: WeakKeyDictionary[type[Any], Mapping[str, str]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Declaration:
    name: str
    "Of the author's class."
    tools: tuple[ToolSpec, ...]
    abilities: tuple[str, ...]
    "Which of `ABILITIES` it offers."
    adapted: bool
    "An `Env`: it tells the model its mistakes and grades where it truncates."
    waits: bool
    "It has async methods, which it cuts at their deadlines itself."
    max_steps: int | None = None
    step_deadline: float | None = None
    "Seconds; None where it names no deadline."
    reset_deadline: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    "`file:line` of the author's methods by name; under the empty name, of the class."
    files: tuple[str, ...] = ()
    "Files that define the class and its bases."

    def where(self, *methods: str) -> str:
        """`file:line` of the first of `methods` that the author wrote, else of the class."""
        own = next((name for name in methods if name in self.sources), "")
        return self.sources.get(own, self.name)


def declaration_of(environment: Environment) -> Declaration:
    """What `environment` declares; an adapted `Env` declares what its author wrote."""
    owner: type[Any] = type(getattr(environment, "author", environment))
    return Declaration(
        name=owner.__name__,
        tools=tuple(environment.tools()),
        abilities=tuple(name for name in ABILITIES if hasattr(environment, name)),
        adapted=hasattr(environment, "author"),
        waits=getattr(environment, "waits", True),
        max_steps=getattr(environment, "max_steps", None),
        step_deadline=getattr(environment, "step_deadline", None),
        reset_deadline=getattr(environment, "reset_deadline", None),
        sources=_sources(owner),
        files=tuple(sorted({code.co_filename for code in codes_of(owner)})),
    )


def _sources(owner: type[Any]) -> Mapping[str, str]:
    if owner not in _SOURCES:
        own = [name for name in dir(owner) if is_own(owner, name) and hasattr(getattr(owner, name), "__code__")]
        _SOURCES[owner] = {name: source_of(owner, name) for name in ("", *own)}
    return _SOURCES[owner]
