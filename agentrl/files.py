"""Writing a file whole: a reader, or a run after a kill or a power cut, sees the old one or the new one and never half
of either.
"""

from __future__ import annotations

import os
from pathlib import Path

from agentrl.errors import StoreError


def write_whole(path: Path, data: bytes) -> None:
    """Beside its place, then into it. The folder is made. Raises `StoreError` for what the disk does."""
    aside = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be saved: {error}. Free space or choose another place.") from error
