"""The office: people, rooms and bookings, and what the agent has done so far.

Plain Python without agentrl. A call that is refused raises `ValueError` in words for the model and books nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tool_desk.calculator import calculate
from tool_desk.words import DAYS

Booking = tuple[str, str, str]
"Person, room, day."


@dataclass(frozen=True, slots=True)
class Person:
    city: str
    phone: int
    boss: str


@dataclass(frozen=True, slots=True)
class Room:
    city: str
    seats: int = 0
    "0 where the office does not tell."
    price: int = 0
    "An hour; 0 where the office does not tell."


@dataclass(slots=True)
class Desk:
    """One office in one episode. Names are found whatever their case; each record is kept in `seen` once."""

    people: Mapping[str, Person]
    rooms: Mapping[str, Room]
    seen: set[str] = field(default_factory=set)
    "What was looked up or calculated with success, as `tool:argument`."
    draft: Booking | None = None
    "The latest booking asked for, as the agent wrote it, also where it was refused."
    bookings: list[Booking] = field(default_factory=list)
    answer: str | None = None

    def find_person(self, name: str) -> str:
        found = _find("no person is called", name, self.people)
        self.seen.add(f"find_person:{found}")
        person = self.people[found]
        return f"{found}: city {person.city}, phone {person.phone}, boss {person.boss}"

    def find_room(self, city: str) -> str:
        found = _find("there is no room in", city, {room.city for room in self.rooms.values()})
        self.seen.add(f"find_room:{found}")
        rooms = [(name, room) for name, room in self.rooms.items() if room.city == found]
        return f"{found}: " + ", ".join(
            f"room {name} ({room.seats} seats, {room.price} an hour)" if room.seats else f"room {name}"
            for name, room in rooms
        )

    def calculate(self, expression: str) -> str:
        value = calculate(expression)
        self.seen.add(f"calculate:{value}")
        return value

    def book(self, person: str, room: str, day: str) -> str:
        self.draft = (person, room, day)
        booking = (
            _find("no person is called", person, self.people),
            _find("no room is called", room, self.rooms),
            _find("no day is called", day, DAYS),
        )
        for other in self.bookings:
            if other[1:] == booking[1:]:
                raise ValueError(f"room {booking[1]} is already booked on {booking[2]}, for {other[0]}.")
        self.bookings.append(booking)
        return "booked"

    def state(self) -> dict[str, Any]:
        """Everything that the agent can change, as JSON."""
        return {
            "seen": sorted(self.seen),
            "draft": list(self.draft) if self.draft else None,
            "bookings": [list(booking) for booking in self.bookings],
            "answer": self.answer,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.seen = set(state["seen"])
        self.draft = _booking(state["draft"]) if state["draft"] else None
        self.bookings = [_booking(entry) for entry in state["bookings"]]
        self.answer = state["answer"]


def same(a: str, b: str) -> bool:
    """Two spellings of one name."""
    return a.strip().casefold() == b.strip().casefold()


def _find(problem: str, name: str, known: Iterable[str]) -> str:
    for candidate in known:
        if same(candidate, name):
            return candidate
    shown = name if len(name) <= 40 else name[:37] + "..."
    raise ValueError(f"{problem} {shown!r}.")


def _booking(entry: list[str]) -> Booking:
    person, room, day = entry
    return person, room, day
