"""Pictures that an environment shows: whole on their way, by name once they are kept.

An `Observation` comes from its environment with data addresses, which travel between processes as any text; the record
of it holds the name, the sha256 of the bytes. Both stand for the same picture.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from agentrl.errors import InvalidDataError

_NAME = re.compile(r"[0-9a-f]{64}")
_ADDRESS = re.compile(r"data:(image/(?:png|jpeg|gif|webp));base64,")
_STARTS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


def picture(data: bytes) -> str:
    """An entry of `Observation.images` from a PNG, JPEG, GIF or WebP. Raises `InvalidDataError` for anything else."""
    kind = media_type(data)
    if not kind:
        raise InvalidDataError(f"{len(data)} bytes that begin with {data[:8]!r} are no PNG, JPEG, GIF or WebP image.")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def media_type(data: bytes) -> str:
    """Empty where it is no picture that a browser shows without running anything in it."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in _STARTS.items() if data.startswith(start)), "")


def is_name(image: str) -> bool:
    return _NAME.fullmatch(image) is not None


def is_whole(image: str) -> bool:
    """Whether an entry of `Observation.images` holds its picture."""
    return image.startswith("data:")


def picture_name(image: str) -> str:
    """Of an entry of `Observation.images`, in whichever form it is. Raises `InvalidDataError` for a broken address."""
    return hashlib.sha256(picture_bytes(image)).hexdigest() if is_whole(image) else image


def picture_bytes(image: str) -> bytes:
    """Of a data address. Raises `InvalidDataError` where it is none, or none of a picture."""
    found = _ADDRESS.match(image)
    try:
        data = base64.b64decode(image[found.end() :], validate=True) if found else b""
    except binascii.Error:
        data = b""
    if found is None or media_type(data) != found[1]:
        raise InvalidDataError(
            f"{image[:40]!r} is no picture; an observation's images are made by `agentrl.picture(bytes)`."
        )
    return data
