"""A problem: the question, the value that answers it, and the code that an oracle would run.

Made from seeds; which split an instance belongs to follows from its text, so no two splits share one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Literal

from code_math import families

Level = Literal["easy", "medium", "hard"]
LEVELS: Mapping[str, int] = {"easy": 0, "medium": 1, "hard": 2}
_SHARES = 5
_PLACE = {"test": (0,), "example": (1,), "train": (2, 3, 4)}
"Of five shares of all instances: test one, example one, train three."


@dataclass(frozen=True, slots=True)
class Problem:
    question: str
    answer: str
    "As a person would write it; compared by value."
    family: str = ""
    cells: tuple[str, ...] = ()
    "Runs of the tool that print the answer, the last one's output; none where the solution is not known."

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"cells": list(self.cells)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Problem:
        """Also reads what a person wrote. Raises `KeyError` where question or answer is missing."""
        cells = tuple(data.get("cells", ()))
        return cls(str(data["question"]), str(data["answer"]), str(data.get("family", "")), cells)


def make_problem(split: str, level: Level, seed: int) -> Problem:
    """The same split, level and seed give the same problem. Its answer is neither 0 nor 1."""
    rng = random.Random(f"{split}/{level}/{seed}")
    names = families.SHORT if level == "easy" else tuple(families.FAMILIES)
    name = rng.choice([name for name in names if split != "example" or name in families.PLAIN])
    while True:
        question, answer, cells = families.FAMILIES[name](rng, LEVELS[level])
        if answer not in ("0", "1") and share_of(question) in _PLACE[split]:
            return Problem(question, answer, name, cells)


def share_of(question: str) -> int:
    """0 to 4, from the text alone."""
    return int(sha256(" ".join(question.split()).encode()).hexdigest()[:8], 16) % _SHARES


def split_of(question: str) -> str:
    """Where a problem of a file belongs that does not say: one in five is held out."""
    return "test" if share_of(question) in _PLACE["test"] else "train"
