"""The metrics of a run: an append-only `metrics.jsonl`, one line a batch, each in the file as soon as it is written.

A killed run leaves at most one torn line, the last; a resumed run drops it and every line after its checkpoint.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentrl.errors import StoreError
from agentrl.files import write_whole


class MetricsLog:
    """Appends to `path`. Lines of batches after `resumed_at` are dropped first: they will be made again.

    -1 drops every line, None none. Raises `StoreError`.
    """

    def __init__(self, path: Path, *, resumed_at: int | None = None) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                _repair(path, resumed_at)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise StoreError(
                f"{path} cannot be written: {error}. Free space or choose another --run-folder."
            ) from error

    def write(self, batch: int, metrics: Mapping[str, float]) -> None:
        """One line; a value that is not finite becomes null, as JSON has no word for it."""
        clean = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        line = json.dumps({"batch": batch, "time": round(time.time(), 3), **clean}) + "\n"
        try:
            # One unbuffered write a line: a kill leaves whole lines, or one torn at the end.
            self._file.write(line.encode())
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be written: {error}. Free space and start the same command again."
            ) from error

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a run, oldest first. A torn last line is left out; a torn line elsewhere raises `StoreError`."""
    *lines, _torn = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            record["batch"]
        except (ValueError, KeyError, TypeError):
            raise StoreError(
                f"{path}:{number} is not a metrics line: {line[:80]!r}. Remove the line to read on."
            ) from None
        records.append(record)
    return records


def _repair(path: Path, resumed_at: int | None) -> None:
    kept = [r for r in read_metrics(path) if resumed_at is None or r["batch"] <= resumed_at]
    whole = b"".join(json.dumps(record).encode() + b"\n" for record in kept)
    if whole != path.read_bytes():
        write_whole(path, whole)
