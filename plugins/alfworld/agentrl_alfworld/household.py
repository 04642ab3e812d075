"""Household tasks made from ALFWorld's own rooms, goals and rules, as the game files that its engine plays.

A task is its room, its kind and a seed, and nothing else; every one can be won.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agentrl_alfworld import package
from agentrl_alfworld.package import CLASSES_OF_ACTION, HOLDS, Room

KINDS = {
    "pick_and_place_simple": ("Kitchen", "LivingRoom", "Bedroom", "Bathroom"),
    "look_at_obj_in_light": ("LivingRoom", "Bedroom"),
    "pick_clean_then_place_in_recep": ("Kitchen", "Bathroom"),
    "pick_heat_then_place_in_recep": ("Kitchen",),
    "pick_cool_then_place_in_recep": ("Kitchen",),
    "pick_two_obj_and_place": ("Kitchen", "LivingRoom", "Bedroom", "Bathroom"),
}
"The six kinds of tasks, and the kinds of rooms that have them."
_NEEDS = {
    "pick_clean_then_place_in_recep": ("Cleanable", "SinkBasin"),
    "pick_heat_then_place_in_recep": ("Heatable", "Microwave"),
    "pick_cool_then_place_in_recep": ("Coolable", "Fridge"),
}
"What must be possible with the thing, and where that is done."
_LAMPS = ("DeskLamp", "FloorLamp")
_STANDS = ("Desk", "SideTable", "Dresser", "Shelf", "CoffeeTable", "DiningTable", "TVStand", "CounterTop")
_START = "loc|0|0|0|1"
"No receptacle is reached from here: their angles are multiples of fifteen degrees."


@dataclass(frozen=True, slots=True)
class Plan:
    """What one task is about."""

    room: int
    kind: str
    thing: str
    place: str
    "Class of the receptacle, or of the lamp."
    words: str


@dataclass(frozen=True, slots=True)
class _Stage:
    """Receptacles and things of a game: ids, classes and where they are."""

    receptacles: tuple[tuple[str, str, str], ...]
    things: tuple[tuple[str, str, str], ...]
    "Id, class and the id of the receptacle that it is in."


def fits(number: int, kind: str) -> bool:
    """Has the room what a task of this kind needs?"""
    return bool(_choices(package.room(number), kind))


def game(number: int, kind: str, seed: int, *, places: int, clutter: int) -> tuple[dict[str, str], Plan]:
    """What the engine loads, and what it is about. places: receptacles. clutter: things that the task is not about."""
    rng = random.Random(f"{number} {kind} {seed}")
    room = package.room(number)
    thing, place = rng.choice(_choices(room, kind))
    stage = _furnished(room, kind, thing, place, rng, places, clutter)
    # Capitals are lost in the engine, so words of it are told small.
    words = rng.choice(package.wordings(kind)).format(obj=thing.lower(), recep=place.lower(), toggle=place.lower())
    told = {"obj": thing, "recep": place, "toggle": place}
    problem = _problem(stage, package.goal(kind, told))
    grammar = package.grammar().replace("UNKNOWN GOAL", words)
    made = {"pddl_domain": package.domain(), "grammar": grammar, "pddl_problem": problem}
    return made, Plan(number, kind, thing, place, words)


def _choices(room: Room, kind: str) -> list[tuple[str, str]]:
    """Pairs of a thing and a place (or a lamp) with which the room can be played."""
    classes = {found for _, found, _ in room.receptacles}
    movable = [thing for thing in room.things if thing not in HOLDS and _homes(thing, classes)]
    if kind == "look_at_obj_in_light":
        lamps = [lamp for lamp in _LAMPS if lamp in room.things and classes & set(_STANDS)]
        return [(thing, lamp) for thing in movable for lamp in lamps]
    if kind in _NEEDS:
        able, where = _NEEDS[kind]
        movable = [thing for thing in movable if thing in CLASSES_OF_ACTION[able]] if where in classes else []
        classes = classes - {where}
    pairs = [(thing, place) for thing in movable for place in _homes(thing, classes)]
    return [(thing, place) for thing, place in pairs if len(_homes(thing, classes)) > 1]


def _homes(thing: str, classes: Iterable[str]) -> list[str]:
    return sorted(place for place in classes if thing in HOLDS[place])


def _furnished(room: Room, kind: str, thing: str, place: str, rng: random.Random, places: int, clutter: int) -> _Stage:
    """The room with what the task needs and some other things, none of which lies where it should end."""
    needed = {place} | ({_NEEDS[kind][1]} if kind in _NEEDS else set())
    order = list(room.receptacles)
    rng.shuffle(order)
    stands = [found for found in order if found[1] in _STANDS]
    sources = [found for found in order if found[1] not in needed and thing in HOLDS[found[1]]]
    kept = {found[0]: found for found in [*_firsts(order, needed), *sources[:1]]}
    things: list[tuple[str, str, str]] = []
    if kind == "look_at_obj_in_light":
        kept.setdefault(stands[0][0], stands[0])
        things.append((f"{place}|1", place, stands[0][0]))
    for found in order:
        if len(kept) >= places:
            break
        kept.setdefault(found[0], found)
    left = [found for found in kept.values() if found[1] not in needed]
    for copy in range(2 if kind == "pick_two_obj_and_place" else rng.randint(1, 2)):
        home = rng.choice([found for found in left if thing in HOLDS[found[1]]])
        things.append((f"{thing}|{copy + 1}", thing, home[0]))
    others = [other for other in room.things if other != thing and other not in HOLDS and other not in _LAMPS]
    for number in range(clutter if others else 0):
        other = rng.choice(others)
        homes = [found for found in kept.values() if other in HOLDS[found[1]]]
        if homes:
            things.append((f"{other}|{number + 1}", other, rng.choice(homes)[0]))
    return _Stage(tuple(sorted(kept.values())), tuple(sorted(things)))


def _firsts(order: Sequence[tuple[str, str, str]], classes: Iterable[str]) -> list[tuple[str, str, str]]:
    """The first receptacle of each class."""
    return [next(found for found in order if found[1] == wanted) for wanted in sorted(classes) if wanted not in _LAMPS]


def _problem(stage: _Stage, goal: str) -> str:
    """The problem in PDDL, in ALFWorld's spelling of names."""
    kinds = {found for _, found, _ in stage.things} | {"Knife", "ButterKnife"}
    holders = {found for _, found, _ in stage.receptacles} | {"SinkBasin", "Microwave", "Fridge"}
    locations = sorted({at for _, _, at in stage.receptacles} | {_START})
    objects = [
        "agent1 # agent",
        *(f"{at} # location" for at in locations),
        *(f"{name} # receptacle" for name, _, _ in stage.receptacles),
        *(f"{name} # object" for name, _, _ in stage.things),
        *(f"{kind}Type # otype" for kind in sorted(kinds)),
        *(f"{kind}Type # rtype" for kind in sorted(holders)),
    ]
    where = {name: at for name, _, at in stage.receptacles}
    facts = ["(= (total-cost) 0)", f"(atLocation agent1 {_START})"]
    for name, kind, at in stage.receptacles:
        facts += [f"(receptacleType {name} {kind}Type)", f"(receptacleAtLocation {name} {at})"]
        facts += [f"(openable {name})"] if kind in package.OPENABLE else []
    for name, kind, inside in stage.things:
        facts += [f"(objectType {name} {kind}Type)", f"(inReceptacle {name} {inside})"]
        facts += [f"(objectAtLocation {name} {where[inside]})"]
        facts += [f"(toggleable {name})"] if kind in _LAMPS else [f"(pickupable {name})"]
        for action in ("Cleanable", "Heatable", "Coolable", "Sliceable"):
            facts += [f"({action.lower()} {name})"] if kind in CLASSES_OF_ACTION[action] else []
    facts += [
        f"(canContain {place}Type {kind}Type)"
        for place in sorted(holders)
        for kind in sorted(kinds)
        if kind in HOLDS.get(place, ())
    ]
    head = "(define (problem household) (:domain alfred)"
    return _spelled(f"{head}\n(:objects {_lines(objects)})\n(:init {_lines(facts)})\n{goal}")


def _lines(parts: Sequence[str]) -> str:
    return "\n  ".join(parts)


def _spelled(text: str) -> str:
    for sign, word in (("-", "_minus_"), ("#", "-"), ("|", "_bar_"), ("+", "_plus_"), (".", "_dot_"), (",", "_comma_")):
        text = text.replace(sign, word)
    return text.replace("total_minus_cost", "total-cost")
