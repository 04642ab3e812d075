"""One task's world in the simulator: loaded, acted in, scored, and its state as a key.

Same task and same commands, same world: whatever was played before in the same process, and in another one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentrl import EnvironmentFault
from agentrl_scienceworld.java import Java

UNKNOWN = "No known action matches that input."
"What the simulator says of a command that it does not understand; nothing happened then."
_CHOICE = "Ambiguous request:"


@dataclass(frozen=True, slots=True)
class Setting:
    """Which world to load."""

    name: str
    variation: int
    simplifications: tuple[str, ...] = ()


class Simulation:
    """Raises `EnvironmentFault` wherever the simulator fails or refuses."""

    def __init__(self, java: Java) -> None:
        self._java = java
        self._world = java.simulation()
        self._pending = ""

    def load(self, setting: Setting) -> str:
        """A fresh world; what the agent sees there."""
        self._load(setting, gold=False)
        self._pending = ""
        return self._text(lambda: self._world.freeActionLook())

    def gold(self, setting: Setting) -> list[str]:
        """A way to the full score, as the simulator's own agent finds one; it is another one each time."""
        self._load(setting, gold=True)
        return [str(command) for command in self._java.ask(lambda: self._world.getGoldActionSequence())]

    def act(self, command: str) -> str:
        # One command: a line break would be read as the end of it.
        said = self._text(lambda: self._world.step(" ".join(command.split())))
        self._pending = said if said.startswith(_CHOICE) else ""
        return said

    @property
    def task(self) -> str:
        return self._text(lambda: self._world.getTaskDescription())

    @property
    def score(self) -> int:
        """Of 100; negative where the task cannot be done any more."""
        return round(100 * float(self._java.ask(lambda: self._world.getScore())))

    @property
    def over(self) -> bool:
        return self.score < 0 or bool(self._java.ask(lambda: self._world.getCompleted()))

    def commands(self) -> list[str]:
        """Every command that would do something here, sorted; hundreds to thousands, in some tenths of a second."""
        found = self._java.ask(lambda: self._world.getValidActionObjectCombinations())
        return sorted({str(command) for command in found})

    def key(self) -> str:
        """Of all things and their properties, the goals that were reached, and a question that is open."""
        tree = json.loads(self._text(lambda: self._world.agentInterface().get().universe().toJSON()))
        goals = self._text(lambda: self._world.getGoalProgressStr())
        told = json.dumps([plain_tree(tree), goals, self._pending], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:20]

    def _load(self, setting: Setting, *, gold: bool) -> None:
        labels = ",".join(setting.simplifications)
        said = self._text(lambda: self._world.load(setting.name, setting.variation, labels, gold))
        if said.startswith("ERROR"):
            raise EnvironmentFault(f"ScienceWorld loads no {setting}: {said}")

    def _text(self, call: Any) -> str:
        return str(self._java.ask(call))


def plain_tree(tree: Mapping[str, Any]) -> Any:
    """The simulator's tree of objects without what differs between two equal worlds.

    Its numbers of objects count everything that was ever made; a degree is what a thermometer shows.
    """
    names = {str(node["uuid"]): where for node, where in _nodes(tree, ())}
    return _plain(tree, names)


def _nodes(node: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[Mapping[str, Any], tuple[str, ...]]]:
    where = (*above, node["name"])
    yield node, where
    for inside in node["contents"].values():
        yield from _nodes(inside, where)


def _plain(value: Any, names: Mapping[str, Sequence[str]]) -> Any:
    if isinstance(value, list):
        return sorted((_plain(item, names) for item in value), key=json.dumps)
    if not isinstance(value, Mapping):
        return value
    told = {name: _plain(inner, names) for name, inner in value.items() if name not in ("uuid", "contents")}
    if "contents" in value:
        told["contents"] = sorted((_plain(inner, names) for inner in value["contents"].values()), key=json.dumps)
    if "temperatureC" in value:
        told["temperatureC"] = round(value["temperatureC"])
    if "connectedTo" in value:
        told["connectedTo"] = sorted(names.get(str(other), ()) for other in value["connectedTo"])
    return told
