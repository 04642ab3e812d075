"""What an answer was worth: exact match and F1 after SQuAD's normalisation; citations and support apart.

Normalisation, exact match and F1 are those of SQuAD (Rajpurkar et al., 2016): case, punctuation and articles count for
nothing.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

LONGEST = 1_000
"Characters of an answer that are read."
_CITATION = re.compile(r"\[([^\[\]\n]{1,80})\]")
_MARKED = re.compile(r"(?:final answer|answer)\s*:", re.IGNORECASE)
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    "Without citations; after the last `Answer:` where there is one."
    cited: tuple[str, ...]
    "Ids in square brackets, each once."


@dataclass(frozen=True, slots=True)
class Citations:
    precision: float
    "Share of the cited documents that are sources (or, where nobody knows these, that hold an answer); 0 without any."
    recall: float
    "Share of the sources that are cited; where nobody knows them, whether any cited document holds an answer."


def read_answer(text: str, known: Collection[str] = ()) -> Answer:
    """`known` are ids that may hold a comma."""
    text = text[:LONGEST]
    groups = [group.strip() for group in _CITATION.findall(text)]
    names = (name.strip() for group in groups for name in ([group] if group in known else group.split(",")))
    cited = tuple(dict.fromkeys(names))
    bare = _CITATION.sub(" ", text)
    return Answer(_MARKED.split(bare)[-1].strip(), cited)


def normalised(text: str) -> str:
    bare = " ".join(text.lower().translate(_NO_PUNCTUATION).split())
    # An answer that is an article, as the A of a choice, stays what it is.
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split()) or bare


def exact_match(answer: str, right: Sequence[str]) -> float:
    return float(bool(normalised(answer)) and any(normalised(answer) == normalised(one) for one in right))


def f1(answer: str, right: Sequence[str]) -> float:
    """Of the words, against the best of the right answers."""
    return max((_f1(normalised(answer).split(), normalised(one).split()) for one in right), default=0.0)


def citations(cited: Collection[str], sources: Collection[str], holding: Mapping[str, bool]) -> Citations:
    """`holding` says of each document that was shown whether it holds a right answer."""
    good = [name for name in cited if (name in sources if sources else holding.get(name, False))]
    precision = len(good) / len(cited) if cited else 0.0
    return Citations(precision, len(good) / len(sources) if sources else float(bool(good)))


def supported(answer: str, shown: Sequence[str]) -> bool:
    """The answer's words stand together in a text that was shown."""
    wanted = f" {normalised(answer)} "
    return bool(wanted.strip()) and any(wanted in f" {normalised(text)} " for text in shown)


def _f1(answer: list[str], right: list[str]) -> float:
    shared = sum((Counter(answer) & Counter(right)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(answer), shared / len(right)
    return 2 * precision * recall / (precision + recall)
