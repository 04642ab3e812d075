"""Problems of one's own: a JSONL file with a question and an answer on each line, plain or compressed (.gz).

A line that is no problem stops the reading with its number; nothing is skipped in silence.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from agentrl.errors import ConfigError
from code_math.answers import is_right, value_of
from code_math.problems import Problem, split_of

_KEYS = ("question", "answer", "split", "family")
_ALLOWED = 'a line is an object with "question" and "answer", as {"question": "What is 2 + 2?", "answer": "4"}'


def read_problems(path: Path) -> dict[str, list[Problem]]:
    """By split: a line says `"split": "train"` or `"test"`, else one question in five is held out, by its text.

    Raises `ConfigError` with the line's number, also where a split has no problem.
    """
    found: dict[str, list[Problem]] = {"train": [], "test": []}
    first_seen: dict[str, int] = {}
    for number, line in _lines(path):
        where = f"{path}:{number}"
        split, problem = _read(line, where)
        key = " ".join(problem.question.casefold().split())
        if key in first_seen:
            raise ConfigError(f"{where} asks what line {first_seen[key]} asks; each question stands once.")
        first_seen[key] = number
        found[split].append(problem)
    for split, problems in found.items():
        if not problems:
            raise ConfigError(
                f"{path} has {len(first_seen)} problems and none of split {split!r}. Add lines, or write "
                f'"split": "{split}" on some.'
            )
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not empty, with their numbers. A line ends where the file says so, not at U+2028 in a text."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _decoded(line, f"{path}:{number}", "utf-8-sig" if number == 1 else "utf-8")
    except (OSError, EOFError) as error:
        raise ConfigError(f"the problems of code_math cannot be read: {error}. Name a JSONL file in UTF-8.") from error


def _decoded(line: bytes, where: str, encoding: str) -> str:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} is not UTF-8 ({error}); {_ALLOWED}.") from error


def _read(line: str, where: str) -> tuple[str, Problem]:
    try:
        data: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is no JSON ({error}); {_ALLOWED}.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{where} holds {type(data).__name__}; {_ALLOWED}.")
    for key in data:
        # Columns that nobody asks for are left alone; a slip of the pen is not one of them.
        if key not in _KEYS and (meant := get_close_matches(key.casefold(), _KEYS, 1, 0.85)):
            raise ConfigError(f"{where} has the key {key!r}. Did you mean {meant[0]!r}?")
    for key in ("question", "answer"):
        value = data.get(key)
        number = isinstance(value, int | float) and not isinstance(value, bool) and key == "answer"
        if not (number and math.isfinite(value)) and not (isinstance(value, str) and value.strip()):
            also = " or a number" if key == "answer" else ""
            raise ConfigError(f"{where} has {key} {_short(value)}, which is no text{also}; {_ALLOWED}.")
    try:
        f"{data['question']}{data['answer']}".encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{where} holds half a character ({error}); write it as UTF-8.") from error
    split = data.get("split", split_of(data["question"]))
    if split not in ("train", "test"):
        raise ConfigError(f"{where} has split {split!r}; there are 'train' and 'test'.")
    problem = Problem.from_json(data)
    if not is_right(problem.answer, value_of(problem.answer)):
        raise ConfigError(f"{where} has answer {_short(problem.answer)}, which holds no value that could be said.")
    return split, problem


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
