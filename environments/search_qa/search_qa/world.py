"""A world of people, towns and works that exist nowhere else, its documents, and questions of one to three hops.

Each fact stands in one document alone, so a question of n hops needs n documents; no model can know the answers before.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from search_qa.documents import Document, Question
from search_qa.index import Index, build
from search_qa.phrases import ENDINGS, MIDDLES, PHRASES, VOWELS, Phrases

PEOPLE, TOWNS, WORKS = 30, 12, 24
PATHS: Mapping[int, tuple[tuple[str, ...], ...]] = {
    1: (("author",), ("finished",), ("birthplace",), ("teacher",), ("river",), ("mayor",)),
    2: (
        *(("author", "birthplace"), ("author", "teacher"), ("birthplace", "river")),
        *(("mayor", "birthplace"), ("teacher", "birthplace"), ("birthplace", "mayor")),
    ),
    3: (
        *(("author", "birthplace", "river"), ("author", "teacher", "birthplace"), ("author", "birthplace", "mayor")),
        *(("mayor", "birthplace", "river"), ("teacher", "birthplace", "mayor"), ("mayor", "teacher", "birthplace")),
    ),
}
"""Relations in the order in which they are followed."""
_OWNER = {
    **{"author": "work", "finished": "work", "birthplace": "person"},
    **{"teacher": "person", "river": "town", "mayor": "town"},
}


@dataclass(frozen=True, slots=True)
class Thing:
    kind: str
    facts: Mapping[str, str]
    document: Document


@dataclass(frozen=True, slots=True)
class World:
    things: Mapping[str, Thing]
    "By name."

    @property
    def documents(self) -> list[Document]:
        return [thing.document for thing in self.things.values()]

    def ask(self, phrases: Phrases, hops: int, rng: Random) -> Question:
        """A question whose answer takes `hops` documents."""
        path = rng.choice(PATHS[hops])
        starts = [name for name, thing in self.things.items() if thing.kind == _OWNER[path[0]]]
        here, what = "", ""
        sources: list[str] = []
        trail: list[str] = []
        # A teacher's teacher may be the pupil: such a walk would name the answer in the question.
        while not here or here in what or len(set(sources)) < hops:
            here = rng.choice(starts)
            what, sources, trail = here, [], []
            for relation in path:
                thing = self.things[here]
                sources.append(thing.document.id)
                trail.append(here)
                what = phrases.relations[relation].format(of=what)
                here = thing.facts[relation]
        return Question(rng.choice(phrases.questions).format(what=what), (here,), tuple(sources), tuple(trail))


@functools.lru_cache(maxsize=32)
def make_world(split: str, number: int) -> World:
    """The same split and number give the same world."""
    phrases, rng = PHRASES[split], Random(f"{split}/world/{number}")
    names = _Names(phrases, rng)
    people = [f"{names.new()} {names.new()}" for _ in range(PEOPLE)]
    towns = [names.new() for _ in range(TOWNS)]
    rivers = [names.new() for _ in range(TOWNS)]
    facts: dict[str, tuple[str, dict[str, str]]] = {}
    for name in people:
        teacher = rng.choice([other for other in people if other != name])
        year = _year(rng, phrases, 1700)
        about = {"trade": rng.choice(phrases.trades), "birthplace": rng.choice(towns), "teacher": teacher, "year": year}
        facts[name] = ("person", about)
    for name, river in zip(towns, rivers, strict=True):
        facts[name] = ("town", {"region": rng.choice(phrases.regions), "river": river, "mayor": rng.choice(people)})
    for _ in range(WORKS):
        year = _year(rng, phrases, 1800)
        made = {"kind": rng.choice(phrases.works), "author": rng.choice(people), "year": year, "finished": year}
        facts[f"{names.new()} {names.new()}"] = ("work", made)
    # In no order that tells what a document is about.
    order = rng.sample(sorted(facts), len(facts))
    numbers = rng.sample(range(100, 1000), len(facts))
    things = {}
    for number_of, name in zip(numbers, order, strict=True):
        kind, about = facts[name]
        text = rng.choice(phrases.documents[kind]).format(name=name, **about)
        things[name] = Thing(kind, about, Document(f"d{number_of}", name, text))
    return World(things)


@functools.lru_cache(maxsize=32)
def index_of(split: str, number: int) -> Index:
    return build(make_world(split, number).documents)


class _Names:
    """New names, none twice; each begins with a letter of the split."""

    def __init__(self, phrases: Phrases, rng: Random) -> None:
        self._initials, self._rng = phrases.initials, rng
        self._used: set[str] = set()

    def new(self) -> str:
        rng = self._rng
        while True:
            name = rng.choice(self._initials) + rng.choice(VOWELS) + rng.choice(MIDDLES) + rng.choice(VOWELS)
            name += rng.choice(ENDINGS)
            if name not in self._used:
                self._used.add(name)
                return name


def _year(rng: Random, phrases: Phrases, first: int) -> str:
    return str(first + 2 * rng.randrange(45) + phrases.years)
