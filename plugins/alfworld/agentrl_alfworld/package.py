"""What is read from the package `alfworld`: its domain, its goals, what goes where, its 120 rooms.

Everything that is a set there comes out sorted, so that two processes draw alike.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

# On import it makes the folder that this names, in the user's home where nothing is named.
os.environ.setdefault("ALFWORLD_DATA", tempfile.gettempdir())

from alfworld.agents.utils.misc import Demangler
from alfworld.gen import constants, goal_library
from alfworld.info import ALFRED_PDDL_PATH, ALFRED_TWL2_PATH

__all__ = [
    "CLASSES_OF_ACTION",
    "HOLDS",
    "UNSEEN",
    "Demangler",
    "domain",
    "goal",
    "grammar",
    "room",
    "rooms",
    "wordings",
]

HOLDS: Mapping[str, tuple[str, ...]] = {
    place: tuple(sorted(things)) for place, things in constants.VAL_RECEPTACLE_OBJECTS.items()
}
"Classes of things that a class of receptacle may hold."
CLASSES_OF_ACTION: Mapping[str, frozenset[str]] = {
    action: frozenset(things) for action, things in constants.VAL_ACTION_OBJECTS.items()
}
OPENABLE = frozenset(constants.OPENABLE_CLASS_LIST)
UNSEEN = frozenset(constants.TEST_SCENE_NUMBERS)
"Rooms that nothing is trained in."
_ROOMS: Mapping[str, Any] = constants.SCENE_TYPE
_GOALS: Mapping[str, Any] = goal_library.gdict
_LAYOUTS = Path(constants.__file__).with_name("layouts")


@dataclass(frozen=True, slots=True)
class Room:
    """One floor plan: its receptacles and the classes of things in it."""

    number: int
    receptacles: tuple[tuple[str, str, str], ...]
    "Id, class and the location from which it is reached."
    things: tuple[str, ...]


def rooms(kinds: tuple[str, ...]) -> list[int]:
    """Numbers of the rooms of some kinds, such as "Kitchen"."""
    return [number for kind in kinds for number in _ROOMS[kind]]


@cache
def room(number: int) -> Room:
    points = json.loads((_LAYOUTS / f"FloorPlan{number}-openable.json").read_text())
    things = json.loads((_LAYOUTS / f"FloorPlan{number}-objects.json").read_text())
    found = []
    for name, (x, z, turn, tilt) in sorted(points.items()):
        last = name.rsplit("|", 1)[-1]
        kind = last if last.isalpha() else name.split("|", 1)[0]
        if kind in HOLDS:
            found.append((name, kind, "loc|" + "|".join(str(round(part)) for part in (x * 4, z * 4, turn / 90, tilt))))
    return Room(number, tuple(found), tuple(sorted(things)))


def goal(kind: str, names: Mapping[str, str]) -> str:
    """The goal in PDDL, with the bracket that ends the problem. names: obj, recep and toggle, where they are used."""
    return str(_GOALS[kind]["pddl"]).format(**names)


def wordings(kind: str) -> list[str]:
    return list(_GOALS[kind]["templates"])


@cache
def domain() -> str:
    return Path(ALFRED_PDDL_PATH).read_text()


@cache
def grammar() -> str:
    return Path(ALFRED_TWL2_PATH).read_text()
