"""The tasks of a server: seeds, or lines of a file.

Seeds from `FIRST_TEST_SEED` on are held out. An environment of ours that is served takes them so too
(`agentrl_openenv.hosting`); a server of others that has no held-out tasks draws its own from them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from agentrl import Task

FIRST_TEST_SEED = 1_000_000
TEST_TASKS = 128


def seeds(split: str) -> Iterator[Task]:
    """train: endless. test: 128."""
    if split not in ("train", "test"):
        raise ValueError(f"there is no split {split!r}; there are 'train' and 'test'.")
    for seed in range(FIRST_TEST_SEED, FIRST_TEST_SEED + TEST_TASKS) if split == "test" else count():
        yield Task(f"openenv-{split}-{seed}", "openenv", seed, {"reset": {"seed": seed}}, split)


def lines(path: Path, split: str) -> Iterator[Task]:
    """Lines `{"id": ..., "prompt": ..., "reset": {"seed": 3, ...}, "split": "train" | "test"}`, all of them optional.

    `reset` is what the server's reset is called with. Raises `ValueError` with the line's number.
    """
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry: Mapping[str, Any] = json.loads(line)
            reset = {"seed": int(entry["seed"])} if "seed" in entry else {}
            reset |= dict(entry.get("reset", {}))
            prompt = str(entry.get("prompt", ""))
            name, part = str(entry.get("id", f"line-{number}")), entry.get("split", "train")
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f'{path}, line {number}, is no task: {error}. A line is {{"id": "a", "reset": {{"seed": 3}}}}.'
            ) from error
        if part == split:
            yield Task(name, "openenv", int(reset.get("seed", 0)), {"reset": reset, "prompt": prompt}, split)
