"""The names and the phrasings that requests are made of.

The splits share none of them: no person, city, room or sentence of `test` occurs in `train`, and the worked example
uses neither. Only the days of the week are common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    people: Sequence[str]
    cities: Sequence[str]
    rooms: Sequence[str]
    phrasings: Mapping[str, tuple[str, ...]]
    "By kind of request; slots are {person} {city} {day} {guests} {hours}."


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


TRAIN = Vocabulary(
    people=_names(
        "Anna Boris Clara David Elena Frank Greta Henry Irene Jacob Karen Louis Maria Nathan Oscar Paula Quinn Robert "
        "Sarah Thomas Ursula Victor Wendy Xavier Yvonne Zachary Alice Brian Carol Daniel Emma Felix Grace Hugo"
    ),
    cities=_names(
        "Berlin Paris London Madrid Rome Vienna Tokyo Boston Chicago Dublin Oslo Lisbon Prague Athens Cairo Delhi "
        "Denver Geneva Havana Lima Milan Moscow Nairobi Seattle Toronto Warsaw Zurich Munich"
    ),
    rooms=_names(
        "Cedar Maple Oak Pine Birch Willow Elm Ash Poplar Spruce Falcon Eagle Heron Raven Robin Swan Sparrow Owl "
        "Tiger Panther Lion Bear Wolf Fox Badger Otter Beaver Moose"
    ),
    phrasings={
        "book": (
            "Book {person} a room in {city}, {day}.",
            "Please reserve a room in {city} for {person}, {day}.",
            "{person} needs a room in {city}, {day}.",
            "{day}: {person} wants a room in {city}.",
            "Get {person} a {city} room, {day}.",
            "I need a {day} room for {person} in {city}.",
        ),
        "phone": (
            "What is {person}'s phone number?",
            "Which number reaches {person}?",
            "Tell me the phone of {person}.",
            "I want to call {person}. What is the number?",
            "Give me {person}'s phone.",
            "Find the phone number of {person}.",
        ),
        "home": (
            "Book {person} a room in {person}'s own city, {day}.",
            "Please reserve a room for {person} in the city of {person}, {day}.",
            "{person} needs a room in the home city, {day}.",
            "{day}: {person} wants a room at home.",
            "Get {person} a room in {person}'s city, {day}.",
            "I need a {day} room for {person} where {person} lives.",
        ),
        "boss": (
            "Book {person}'s boss a room in {city}, {day}.",
            "Please reserve a room in {city} for the boss of {person}, {day}.",
            "The boss of {person} needs a room in {city}, {day}.",
            "{day}: {person}'s boss wants a room in {city}.",
            "Get {person}'s boss a {city} room, {day}.",
            "I need a {day} room for {person}'s boss in {city}.",
        ),
        "cost": (
            "Book {person} a room in {person}'s city, {day}, with {guests} seats or more. What do {hours} hours cost?",
            "{day}: {person} needs a room at home for {guests} people. Book it and tell me the cost of {hours} hours.",
            "{day}: please reserve {person} a room for {guests} people in the home city. What is the price of {hours} "
            "hours?",
            "{person} wants a room in the own city for {hours} hours, {day}, at least {guests} seats. Book it and give "
            "me the cost.",
        ),
    },
)

TEST = Vocabulary(
    people=_names("Adrian Bianca Conrad Diana Edgar Fiona Gavin Hazel Ivan Julia Kevin Laura Martin Nora"),
    cities=_names("Amsterdam Brussels Copenhagen Dallas Helsinki Istanbul Kyoto Miami Naples Quito Sydney"),
    rooms=_names("Amber Coral Crimson Indigo Silver Copper Violet Turquoise Salmon Lemon Peach Mango Walnut"),
    phrasings={
        "book": (
            "{person} will be in {city} this {day}; arrange a meeting room.",
            "Could you find {person} somewhere to meet in {city}? It is for {day}.",
            "{day}, {city}: {person} must have one room.",
        ),
        "phone": (
            "How can I ring {person}?",
            "Somebody has to phone {person}; the digits, please.",
            "Look up {person}'s number for me.",
        ),
        "home": (
            "{person} has a meeting this {day}; arrange somewhere to sit in the town {person} works in.",
            "Could you find {person} one room close to home? It is for {day}.",
            "{day}: {person} must have one room, in whichever city {person} is based.",
        ),
        "boss": (
            "Whoever {person} reports to will be in {city} this {day}; arrange a meeting room.",
            "Could you find {person}'s manager somewhere to meet in {city}? It is for {day}.",
            "{day}, {city}: the person above {person} must have one room.",
        ),
        "cost": (
            "{person} meets {guests} guests this {day}, close to home, during {hours} hours. Arrange it; how much is "
            "that?",
            "Could you find {person} somewhere to meet in the town {person} works in? It is for {day}, {guests} chairs "
            "and {hours} hours. The total?",
        ),
    },
)

EXAMPLE = Vocabulary(
    people=("Olga", "Peter", "Rosa"),
    cities=("Bergen", "Porto", "Riga"),
    rooms=("Comet", "Saturn", "Venus", "Pluto", "Mars", "Orion", "Jupiter", "Mercury", "Neptune"),
    phrasings={
        "book": ("A room for {person} in {city}, {day}.", "{day}, a room in {city} for {person}."),
        "phone": ("The phone number of {person}?",),
        "home": ("A room for {person} in the city {person} lives in, {day}.",),
        "boss": ("A room for {person}'s boss in {city}, {day}.",),
        "cost": ("A room with {guests} seats for {person} in {person}'s city, {day}, and its cost for {hours} hours.",),
    },
)

VOCABULARIES: Mapping[str, Vocabulary] = {"train": TRAIN, "test": TEST, "example": EXAMPLE}
