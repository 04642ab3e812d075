"""A request: the office it is made in, the words, and the state of the office that fulfils it.

The same split, level and seed give the same request; it is JSON, so that a task carries all of it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tool_desk.desk import Booking, Desk, Person, Room
from tool_desk.words import DAYS, VOCABULARIES, Vocabulary

Level = Literal["easy", "medium", "hard"]
KINDS: Mapping[str, tuple[str, ...]] = {"easy": ("book", "phone"), "medium": ("home", "boss"), "hard": ("cost",)}
"The kinds of request of each level; they take 2, 3 and 5 actions."


@dataclass(frozen=True, slots=True)
class Request:
    kind: str
    text: str
    people: Mapping[str, Person]
    rooms: Mapping[str, Room]
    lookups: tuple[tuple[str, str], ...]
    "Tool and argument of each record that must be read, in order."
    expression: str = ""
    "What must be calculated, if anything."
    booking: Booking | None = None
    "The one booking that must be in the office at the end, and no other."
    answer: int | None = None
    "The number that must be told, if any."

    def desk(self) -> Desk:
        return Desk(self.people, self.rooms)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "lookups": [list(lookup) for lookup in self.lookups],
            "booking": list(self.booking) if self.booking else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Request:
        """Also reads requests that a person wrote. Raises `KeyError` or `TypeError` where a field is missing."""
        person_room_day = data.get("booking")
        return cls(
            kind=data["kind"],
            text=data["text"],
            people={name: Person(**record) for name, record in data["people"].items()},
            rooms={name: Room(**record) for name, record in data["rooms"].items()},
            lookups=tuple((tool, argument) for tool, argument in data["lookups"]),
            expression=data.get("expression", ""),
            booking=(person_room_day[0], person_room_day[1], person_room_day[2]) if person_room_day else None,
            answer=data.get("answer"),
        )


def make_request(split: str, level: Level, seed: int) -> Request:
    rng = random.Random(f"{split}/{level}/{seed}")
    return make_kind(split, rng.choice(KINDS[level]), rng)


def make_kind(split: str, kind: str, rng: random.Random) -> Request:
    """An office of three cities and up to four people, and one request of that kind in it."""
    words = VOCABULARIES[split]
    cities = rng.sample(words.cities, 3)
    people = _people(rng, words, cities, split)
    rooms = _rooms(rng, words, cities, priced=kind == "cost")
    person, city, day = rng.choice(list(people)), rng.choice(cities), rng.choice(DAYS)
    record = people[person]
    guests, hours = rng.choice((8, 9)), rng.randint(2, 6)
    text = rng.choice(words.phrasings[kind]).format(person=person, city=city, day=day, guests=guests, hours=hours)
    if kind == "phone":
        return Request(kind, text, people, rooms, (("find_person", person),), answer=record.phone)
    if kind == "book":
        return Request(kind, text, people, rooms, (("find_room", city),), booking=(person, _room(rooms, city), day))
    if kind == "boss":
        lookups = (("find_person", person), ("find_room", city))
        return Request(kind, text, people, rooms, lookups, booking=(record.boss, _room(rooms, city), day))
    room = _room(rooms, record.city, seats=guests if kind == "cost" else 0)
    lookups = (("find_person", person), ("find_room", record.city))
    if kind == "home":
        return Request(kind, text, people, rooms, lookups, booking=(person, room, day))
    price = rooms[room].price
    return Request(kind, text, people, rooms, lookups, f"{price} * {hours}", (person, room, day), price * hours)


def _people(rng: random.Random, words: Vocabulary, cities: list[str], split: str) -> dict[str, Person]:
    names = rng.sample(words.people, min(4, len(words.people)))
    # Phone numbers are entities too: the test split has the multiples of five.
    phones = [number for number in rng.sample(range(1000, 10000), 60) if (number % 5 == 0) == (split == "test")]
    return {
        name: Person(rng.choice(cities), phone, rng.choice([other for other in names if other != name]))
        for name, phone in zip(names, phones, strict=False)
    }


def _rooms(rng: random.Random, words: Vocabulary, cities: list[str], *, priced: bool) -> dict[str, Room]:
    """One room a city; with prices three a city, of which only one seats eight or more."""
    if not priced:
        return {name: Room(city) for name, city in zip(rng.sample(words.rooms, 3), cities, strict=True)}
    names = iter(rng.sample(words.rooms, 9))
    rooms: dict[str, Room] = {}
    for city in cities:
        for seats in rng.sample((rng.choice((2, 3)), rng.choice((4, 5)), rng.choice((9, 10))), 3):
            rooms[next(names)] = Room(city, seats, rng.randint(11, 29))
    return rooms


def _room(rooms: Mapping[str, Room], city: str, seats: int = 0) -> str:
    """The one room of a city with that many seats."""
    (name,) = (name for name, room in rooms.items() if room.city == city and room.seats >= seats)
    return name
