"""The words of a generated world: syllables of names, sentences of documents and of questions, by split.

The splits share no name (each name begins with letters of its split), no number and no sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phrases:
    initials: str
    "Letters that names begin with."
    years: int
    "Remainder of all years when halved."
    documents: Mapping[str, tuple[str, ...]]
    "By kind of thing: forms of its document; slots are its relations."
    works: tuple[str, ...]
    "Kinds of works."
    trades: tuple[str, ...]
    regions: tuple[str, ...]
    relations: Mapping[str, str]
    "By relation, a noun phrase; the slot is a name or another such phrase."
    questions: tuple[str, ...]


VOWELS = "aeiou"
MIDDLES = ("l", "r", "n", "m", "v", "st", "nd", "rk", "lt", "sh", "th")
ENDINGS = ("n", "r", "s", "l", "m", "x", "th", "rd", "sk")

TRAIN = Phrases(
    initials="BDFGKLM",
    years=0,
    documents={
        "person": (
            "{name} is a {trade} from {birthplace}, born there in {year}. {name} learned the trade from {teacher}.",
            "{name} was born in {birthplace} in {year} and became a {trade}. The teacher of {name} was {teacher}.",
        ),
        "town": (
            "{name} is a town in {region}. It lies on the river {river}. The mayor of {name} is {mayor}.",
            "The town of {name} stands on the river {river} in {region}. {mayor} is its mayor.",
        ),
        "work": (
            "{name} is a {kind} by {author}. It was finished in {year}.",
            "{author} wrote the {kind} {name} and finished it in {year}.",
        ),
    },
    works=("novel", "play", "poem"),
    trades=("weaver", "doctor", "painter", "pilot"),
    regions=("the northern hills", "the coast", "the plain"),
    relations={
        "author": "the author of {of}",
        "finished": "the year in which {of} was finished",
        "birthplace": "the town where {of} was born",
        "teacher": "the teacher of {of}",
        "river": "the river of {of}",
        "mayor": "the mayor of {of}",
    },
    questions=("What is the name of {what}?", "Name {what}.", "Find {what}."),
)

TEST = Phrases(
    initials="NPRSTVZ",
    years=1,
    documents={
        "person": (
            "A {trade} by profession, {name} came into the world at {birthplace} ({year}); {teacher} gave the lessons.",
            "{teacher} taught {name}, a {trade}. Place and year of birth: {birthplace}, {year}.",
        ),
        "town": (
            "{name} belongs to {region}. Through {name} flows the {river}. {mayor} heads the council.",
            "Council of {name}: headed by {mayor}. Waters: the {river}. Part of {region}.",
        ),
        "work": (
            "{name}: {kind}, created by {author}, completed {year}.",
            "Completed {year}, the {kind} {name} comes from the hand of {author}.",
        ),
    },
    works=("opera", "mural", "ballet"),
    trades=("carpenter", "botanist", "sailor", "jeweller"),
    regions=("a southern valley", "an archipelago", "a highland"),
    relations={
        "author": "whoever created {of}",
        "finished": "when {of} had been completed",
        "birthplace": "{of}'s place of birth",
        "teacher": "the one that taught {of}",
        "river": "the water flowing through {of}",
        "mayor": "the head of council at {of}",
    },
    questions=("I am looking for {what}. Who or what is it?", "Please identify {what}, in a word or two."),
)

PHRASES: Mapping[str, Phrases] = {"train": TRAIN, "test": TEST}
