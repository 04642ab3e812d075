"""Successes as supervised fine-tuning data: a JSON object a line with `messages` and `tools`.

Only what an agent did itself and did well is in it: no fault, no failure, no suspected hack, no answer that could not
be read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agentrl.errors import ConfigError, StoreError
from agentrl.export.messages import as_chat, conversation
from agentrl.outcomes import Outcome
from agentrl.store.reader import FolderReader
from agentrl.types import ToolSpec, Trajectory


@dataclass(frozen=True, slots=True)
class SftFile:
    path: Path
    examples: int
    left_out: dict[str, int]
    "Successes that are not in it, by reason."


def save_sft(reader: FolderReader, path: Path, tools: Sequence[ToolSpec]) -> SftFile:
    """Raises `ConfigError` where no success was recorded, `StoreError` where the disk refuses."""
    left_out: Counter[str] = Counter()
    examples = 0
    try:
        with path.open("x", encoding="utf-8") as file:
            for row in reader.rows("success = 1"):
                if row.outcome != Outcome.SUCCESS:
                    left_out[row.outcome] += 1
                    continue
                trajectory = reader.trajectory(row.id)
                if reason := _unfit(trajectory):
                    left_out[reason] += 1
                    continue
                # In ASCII: some readers of lines split at separators that Unicode has and JSON may hold.
                file.write(json.dumps(example(trajectory, tools)) + "\n")
                examples += 1
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}.") from error
    if not examples:
        path.unlink()
        told = "".join(f", {count} left out ({reason})" for reason, count in left_out.items())
        raise ConfigError(
            f"{reader.folder} holds no success to learn from: {reader.count()} episodes ended{told}. Train longer, or "
            "evaluate an oracle: agentrl eval SUITE -m oracle"
        )
    return SftFile(path, examples, dict(left_out))


def example(trajectory: Trajectory, tools: Sequence[ToolSpec]) -> dict[str, object]:
    """It ends with the last answer; `tools` is left out where there are none."""
    said = conversation(trajectory)
    while said and said[-1].role != "assistant":
        said.pop()
    found: dict[str, object] = {"messages": [as_chat(message) for message in said]}
    if tools:
        found["tools"] = [tool.as_function() for tool in tools]
    return found | {"task": trajectory.task.id, "episode": trajectory.id, "reward": trajectory.reward}


def _unfit(trajectory: Trajectory) -> str:
    """Why an episode is no example; empty where it is one."""
    if any(step.action.error for step in trajectory.steps):
        return "an answer could not be read"
    if any(step.observation.images for step in trajectory.steps):
        return "it was shown images"
    return ""
