"""Problems of one's own: a JSONL file with a question and an answer on each line.

A line that is no problem stops the reading with its number; nothing is skipped in silence.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agentrl.errors import ConfigError
from code_math.problems import Problem, split_of

_KEYS = ("question", "answer", "split", "family")


def read_problems(path: Path) -> dict[str, list[Problem]]:
    """By split: a line says `"split": "train"` or `"test"`, else one question in five is held out, by its text.

    Raises `ConfigError` with the line's number, also where a split has no problem.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the problems of code_math cannot be read: {error}. Name a JSONL file in UTF-8.") from error
    found: dict[str, list[Problem]] = {"train": [], "test": []}
    first_seen: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        split, problem = _read(line, where)
        key = " ".join(problem.question.split())
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


def _read(line: str, where: str) -> tuple[str, Problem]:
    allowed = 'a line is an object with "question" and "answer", as {"question": "What is 2 + 2?", "answer": "4"}'
    try:
        data: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is no JSON ({error}); {allowed}.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{where} holds {type(data).__name__}; {allowed}.")
    if unknown := sorted(set(data) - set(_KEYS)):
        raise ConfigError(f"{where} has the key {unknown[0]!r}; known are {', '.join(_KEYS)}.")
    for key in ("question", "answer"):
        value = data.get(key)
        number = isinstance(value, int | float) and not isinstance(value, bool) and key == "answer"
        if not number and not (isinstance(value, str) and value.strip()):
            raise ConfigError(f"{where} has {key} {value!r}; {allowed}.")
    split = data.get("split", split_of(data["question"]))
    if split not in ("train", "test"):
        raise ConfigError(f"{where} has split {split!r}; there are 'train' and 'test'.")
    return split, Problem.from_json(data)
