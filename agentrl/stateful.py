"""The memory of parts inside parts: who remembers, found by walking the fields of dataclasses, saved by place.

A part that is `Stateful` answers for everything that it holds; nothing below it is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass

from agentrl.protocols import Stateful
from agentrl.types import JSON

Named = tuple[str, object]


def held(name: str, part: object) -> Iterator[Named]:
    """`part` and the parts in its fields and tuples, each with its place: `credit`, `credit.terms.0.1`."""
    if isinstance(part, tuple):
        for place, item in enumerate(part):
            yield from held(f"{name}.{place}", item)
        return
    yield name, part
    if is_dataclass(part) and not isinstance(part, (type, Stateful)):
        for field in fields(part):
            yield from held(f"{name}.{field.name}", getattr(part, field.name))


def states(parts: Iterable[Named]) -> dict[str, JSON]:
    """By place, of the parts that have a memory."""
    return {name: part.state() for name, part in parts if isinstance(part, Stateful)}


def restore(parts: Iterable[Named], state: Mapping[str, JSON]) -> None:
    """Give each part its own back; a part without an entry stays as it is."""
    for name, part in parts:
        if name in state and isinstance(part, Stateful):
            part.restore(state[name])
