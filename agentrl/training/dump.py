"""Batches on disk: what a failed update was given, for a look and a replay.

Rule: plain arrays in an npz, nothing pickled; loading gives an equal batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        **_packed("context", batch.contexts),
        **_packed("teacher_context", batch.teacher_contexts),
    )


def load_batch(path: Path) -> TrainingBatch:
    with np.load(path, allow_pickle=False) as stored:
        table: dict[str, Any] = {name: stored[f"table.{name}"] for name in PLAIN if f"table.{name}" in stored}
        scores = {key.removeprefix("scores."): stored[key] for key in stored if key.startswith("scores.")}
        return TrainingBatch(
            table=StepTable(**table, scores=scores, tasks=tuple(map(str, stored["tasks"]))),
            columns=TokenColumns(**{f.name: stored[f"columns.{f.name}"] for f in fields(TokenColumns)}),
            contexts=_unpacked("context", stored) or (),
            advantage=stored["advantage"],
            weight=stored["weight"],
            scale=stored["scale"],
            teacher_contexts=_unpacked("teacher_context", stored),
        )


def _packed(kind: str, contexts: Sequence[Context] | None) -> dict[str, Any]:
    if contexts is None:
        return {}
    return {
        f"{kind}_length": np.array([len(c.tokens) for c in contexts], np.int64),
        f"{kind}_tokens": np.concatenate([c.tokens for c in contexts] or [np.zeros(0, np.int32)]),
        f"{kind}_column": np.concatenate([c.column for c in contexts] or [np.zeros(0, np.int64)]),
    }


def _unpacked(kind: str, stored: Mapping[str, np.ndarray[Any, Any]]) -> tuple[Context, ...] | None:
    if f"{kind}_length" not in stored:
        return None
    bounds = np.cumsum(stored[f"{kind}_length"])[:-1]
    if not len(stored[f"{kind}_length"]):
        return ()
    parts = (np.split(stored[f"{kind}_{part}"], bounds) for part in ("tokens", "column"))
    return tuple(Context(tokens, column) for tokens, column in zip(*parts, strict=True))
