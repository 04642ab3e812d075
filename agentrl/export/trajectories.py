"""The episodes of a run or an evaluation as a parquet file, a row each.

Episodes are read and written a few hundred at a time. What has no fixed columns (arguments, scores, task data) is JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from agentrl.errors import MissingDependencyError, StoreError
from agentrl.export.messages import conversation
from agentrl.store.reader import FolderReader
from agentrl.store.rows import EpisodeRow
from agentrl.types import Trajectory

AT_ONCE = 256
"Episodes of one row group."


def save_trajectories(reader: FolderReader, path: Path) -> int:
    """Write `path` and return the number of rows.

    Raises `MissingDependencyError` where the extra `data` is not installed, `StoreError` where the disk refuses.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError(
            "trajectories as parquet need pyarrow; install it with `pip install 'agentrl-framework[data]'`."
        ) from error
    schema = _schema(pyarrow)
    written = 0
    try:
        with parquet.ParquetWriter(path, schema) as writer:
            rows = reader.rows()
            while chunk := list(islice(rows, AT_ONCE)):
                told = [episode(row, reader.trajectory(row.id)) for row in chunk]
                writer.write_table(pyarrow.Table.from_pylist(told, schema=schema))
                written += len(chunk)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}.") from error
    return written


def episode(row: EpisodeRow, trajectory: Trajectory) -> dict[str, Any]:
    steps = trajectory.steps
    return {
        "id": row.id,
        "group": row.group,
        "task": row.task,
        "split": trajectory.task.split,
        "task_data": json.dumps(dict(trajectory.task.data)),
        "source": row.source,
        "forked_from": row.forked_from,
        "batch": row.batch,
        "policy_version": row.newest,
        "status": row.status,
        "outcome": row.outcome,
        "success": bool(row.success),
        "reward": row.reward,
        "step_rewards": [step.reward for step in steps],
        "step_scores": [json.dumps(dict(step.scores)) for step in steps],
        "steps": row.steps,
        "sampled_tokens": row.tokens,
        "calls": row.calls,
        "wrong_calls": row.wrong_calls,
        "seconds": row.seconds,
        "error": row.error,
        "messages": list(_messages(trajectory)),
    }


def _messages(trajectory: Trajectory) -> Iterator[dict[str, Any]]:
    for message in conversation(trajectory):
        yield {
            "role": message.role,
            "content": message.content,
            "name": message.name,
            "tool_calls": [{"name": c.name, "arguments": json.dumps(dict(c.arguments))} for c in message.tool_calls],
        }


def _schema(pyarrow: Any) -> Any:
    text, whole, real = pyarrow.string(), pyarrow.int64(), pyarrow.float64()
    call = pyarrow.struct([("name", text), ("arguments", text)])
    message = pyarrow.struct([("role", text), ("content", text), ("name", text), ("tool_calls", pyarrow.list_(call))])

    def columns(kind: Any, names: str) -> Iterable[tuple[str, Any]]:
        return [(name, kind) for name in names.split()]

    return pyarrow.schema(
        [
            *columns(text, "id group task split task_data source forked_from"),
            *columns(whole, "batch policy_version"),
            *columns(text, "status outcome"),
            ("success", pyarrow.bool_()),
            ("reward", real),
            ("step_rewards", pyarrow.list_(real)),
            ("step_scores", pyarrow.list_(text)),
            *columns(whole, "steps sampled_tokens calls wrong_calls"),
            ("seconds", real),
            ("error", text),
            ("messages", pyarrow.list_(message)),
        ]
    )
