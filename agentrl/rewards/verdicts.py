"""What a judge said, kept on the disk by the content of the question: nothing is paid for twice.

A verdict is one file, written aside and renamed: any number of processes may share a folder, and a kill leaves whole
verdicts. A file that cannot be read is a verdict that is not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

import msgspec

from agentrl.errors import StoreError
from agentrl.types import JSON


class Verdict(msgspec.Struct, frozen=True):
    """One reply that could be read."""

    model: str
    scores: tuple[float, ...]
    reply: str
    "In full, for who wants to know why."
    prompt_tokens: int
    completion_tokens: int


class Verdicts:
    """The verdicts in `folder`, which is made when the first is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: str) -> Verdict | None:
        try:
            return msgspec.json.decode(self._path(key).read_bytes(), type=Verdict)
        except (OSError, msgspec.MsgspecError):
            return None

    def keep(self, key: str, verdict: Verdict) -> None:
        """Raises `StoreError`."""
        path = self._path(key)
        aside = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, aside = tempfile.mkstemp(prefix=".", suffix=".writing", dir=path.parent)
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.encode(verdict))
                file.flush()
                os.fsync(file.fileno())
            Path(aside).replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                Path(aside).unlink(missing_ok=True)
            raise StoreError(
                f"the verdict {path} cannot be written: {error}. Free space, or name another folder as `cache`."
            ) from error

    def _path(self, key: str) -> Path:
        # Two characters of folder: a million files in one are slow to list.
        return self.folder / key[:2] / f"{key}.json"


def content_key(question: JSON) -> str:
    """The name of a question: a hash of all that its answer depends on."""
    return hashlib.sha256(msgspec.json.encode(question, order="deterministic")).hexdigest()
