"""Batches on disk: what a failed update was given, for a look and a replay.

Rule: plain arrays in an npz, nothing pickled; loading gives an equal batch.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from agentrl.batch import Context, StepTable, TokenColumns, TrainingBatch

PLAIN = tuple(f.name for f in fields(StepTable) if f.name not in ("scores", "tasks"))
"Columns of the table that are arrays as they are."


def save_batch(batch: TrainingBatch, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {f"table.{name}": getattr(batch.table, name) for name in PLAIN if getattr(batch.table, name) is not None}
    table |= {f"scores.{name}": values for name, values in batch.table.scores.items()}
    table["tasks"] = np.array(batch.table.tasks, np.str_)
    columns = {f"columns.{f.name}": getattr(batch.columns, f.name) for f in fields(TokenColumns)}
    np.savez_compressed(
        path,
        **table,
        **columns,
        advantage=batch.advantage,
        weight=batch.weight,
        scale=batch.scale,
        context_length=np.array([len(c.tokens) for c in batch.contexts], np.int64),
        context_tokens=np.concatenate([c.tokens for c in batch.contexts] or [np.zeros(0, np.int32)]),
        context_column=np.concatenate([c.column for c in batch.contexts] or [np.zeros(0, np.int64)]),
    )


def load_batch(path: Path) -> TrainingBatch:
    with np.load(path, allow_pickle=False) as stored:
        bounds = np.cumsum(stored["context_length"])[:-1]
        tokens = np.split(stored["context_tokens"], bounds)
        column = np.split(stored["context_column"], bounds)
        table: dict[str, Any] = {name: stored[f"table.{name}"] for name in PLAIN if f"table.{name}" in stored}
        scores = {key.removeprefix("scores."): stored[key] for key in stored if key.startswith("scores.")}
        return TrainingBatch(
            table=StepTable(**table, scores=scores, tasks=tuple(map(str, stored["tasks"]))),
            columns=TokenColumns(**{f.name: stored[f"columns.{f.name}"] for f in fields(TokenColumns)}),
            contexts=tuple(Context(t, c) for t, c in zip(tokens, column, strict=True)) if len(bounds) + 1 else (),
            advantage=stored["advantage"],
            weight=stored["weight"],
            scale=stored["scale"],
        )
