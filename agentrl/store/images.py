"""Screenshots of a run, beside its payloads: one file an image, called by the hash of its bytes.

An image is written aside and renamed, so a name never stands for half of it; only pictures that a browser shows
without running anything in them are taken.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from dataclasses import replace
from pathlib import Path

from agentrl.errors import StoreError
from agentrl.pictures import is_name, is_whole, media_type, picture, picture_bytes
from agentrl.types import Observation, Trajectory

IMAGES = "images"
_NOTHING = Observation(())
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"Markers of a JPEG that are followed by its size."


class ImageStore:
    """The images of a run's or an evaluation's folder. Several processes may put into one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / IMAGES

    def put(self, data: bytes) -> str:
        """Keep a PNG, JPEG, GIF or WebP; its hash (sha256, hex) is what `Observation.images` names it by.

        Raises `InvalidDataError` for anything else, `StoreError` for what the disk does.
        """
        picture(data)
        name = hashlib.sha256(data).hexdigest()
        path = self.folder / name
        try:
            if path.exists():
                return name
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, aside = tempfile.mkstemp(dir=self.folder, suffix=".partial")
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(aside).replace(path)
        except OSError as error:
            raise StoreError(f"an image cannot be kept in {self.folder}: {error}. Free space or fix it.") from error
        return name

    def keep(self, trajectory: Trajectory) -> Trajectory:
        """With its pictures in the store and their names in their place. Raises `StoreError`, `InvalidDataError`."""
        shown = [step.observation for step in trajectory.steps] + [trajectory.final or _NOTHING]
        if not any(is_whole(image) for observation in shown for image in observation.images):
            return trajectory
        steps = tuple(replace(step, observation=self._named(step.observation)) for step in trajectory.steps)
        final = None if trajectory.final is None else self._named(trajectory.final)
        return replace(trajectory, steps=steps, final=final)

    def _named(self, shown: Observation) -> Observation:
        names = (self.put(picture_bytes(image)) if is_whole(image) else image for image in shown.images)
        return replace(shown, images=tuple(names)) if shown.images else shown

    def get(self, name: str) -> bytes:
        """Raises `StoreError` where there is none of that name, or where its bytes are others."""
        try:
            data = (self.folder / name).read_bytes() if is_name(name) else b""
        except OSError:
            data = b""
        if hashlib.sha256(data).hexdigest() != name:
            raise StoreError(f"{self.folder} holds no image {name!r}, or one with other bytes. Play the episode again.")
        return data

    def size(self, name: str) -> tuple[int, int] | None:
        """Width and height in pixels; None where that is not known."""
        try:
            return image_size(self.get(name))
        except StoreError:
            return None


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG, GIF or JPEG, as its header says."""
    try:
        kind = media_type(data)
        if kind == "image/png":
            return _pair(">II", data[16:24])
        if kind == "image/gif":
            return _pair("<HH", data[6:10])
        return _jpeg_size(data) if kind == "image/jpeg" else None
    except (struct.error, IndexError):
        return None


def share_of(x: object, y: object, size: tuple[int, int] | None) -> tuple[float, float] | None:
    """A place in pixels as shares of width and height; where the size is unknown, shares are taken as they are."""
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in (x, y)):
        return None
    assert isinstance(x, int | float) and isinstance(y, int | float)
    width, height = size or (1, 1)
    across, down = x / max(width, 1), y / max(height, 1)
    return (across, down) if 0 <= across <= 1 and 0 <= down <= 1 else None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in _FRAMES:
            height, width = _pair(">HH", data[place + 5 : place + 9])
            return width, height
        place += 2 + struct.unpack(">H", data[place + 2 : place + 4])[0]
    return None


def _pair(form: str, data: bytes) -> tuple[int, int]:
    first, second = struct.unpack(form, data)
    return first, second
