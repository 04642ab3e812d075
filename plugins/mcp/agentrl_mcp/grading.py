"""Tasks from a file and a reward from the user's function: what MCP itself does not know.

A task is a line of JSON with a prompt; the function sees the calls, the answer, the episode's folder, and may ask the
server once more.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentrl import EnvironmentFault, Task


@dataclass(frozen=True, slots=True)
class Called:
    """One tool call of the episode."""

    name: str
    arguments: Mapping[str, Any]
    result: str
    error: bool


@dataclass(frozen=True, slots=True)
class Played:
    """What an episode was, for the reward function."""

    task: Task
    calls: tuple[Called, ...]
    answer: str
    "The model's last words; empty where a limit ended the episode."
    folder: Path
    "The episode's own, where its server may have written; it is removed afterwards."
    ask: Callable[[str, Mapping[str, Any]], Awaitable[str]] = field(repr=False)
    "Calls a tool of the episode's server, to look at what is left there."


Reward = Callable[[Played], "float | Mapping[str, float] | Awaitable[float | Mapping[str, float]]"]


def read_tasks(path: Path, split: str) -> Iterator[Task]:
    """Lines `{"id": ..., "prompt": ..., "split": "train" | "test", ...}`; what else a line holds is the task's data.

    Raises `ValueError` with the line's number.
    """
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            if not isinstance(entry["prompt"], str):
                raise TypeError("the prompt is no text")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{path}, line {number}, is no task: {error}. A line is {{"prompt": "..."}}.') from error
        if entry.get("split", "train") == split:
            yield Task(str(entry.get("id", f"line-{number}")), "mcp", int(entry.get("seed", 0)), entry, split)


def load_reward(name: str) -> Reward:
    """`package.module:function` or `path/to/file.py:function`. Raises `ValueError` where there is none."""
    home, _, function = name.rpartition(":")
    try:
        if home.endswith(".py"):
            specification = importlib.util.spec_from_file_location(Path(home).stem, home)
            assert specification is not None and specification.loader is not None
            module = importlib.util.module_from_spec(specification)
            specification.loader.exec_module(module)
        else:
            module = importlib.import_module(home)
        found: Reward = getattr(module, function)
    except (ImportError, AttributeError, ValueError, OSError) as error:
        raise ValueError(
            f"has reward {name!r}, which is no function: {error}. Write package.module:function or file.py:function."
        ) from error
    return found


async def graded(reward: Reward, played: Played) -> tuple[float, dict[str, float]]:
    """The reward and its named parts. Raises `EnvironmentFault` for what is no finite number."""
    said = reward(played)
    if inspect.isawaitable(said):
        said = await said
    try:
        if isinstance(said, Mapping):
            scores = {str(name): float(value) for name, value in said.items()}
            return scores.pop("reward"), scores
        return float(said), {}
    except (KeyError, TypeError, ValueError) as error:
        raise EnvironmentFault(
            f"the reward function returned {said!r} ({error}); allowed is a number, or numbers by name, one of them "
            "'reward'."
        ) from error
