"""Where in the author's code something went wrong: `file:line` from a traceback, a running frame or a class.

The place named is the innermost line of the author's own files, so that a fault inside a library still leads home.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Literal

from agentrl.errors import EnvironmentFault

_LIBRARY = f"{Path(__file__).parent}{os.sep}"

Place = tuple[str, int]
"File and line."


class AuthorFault(EnvironmentFault):
    """An `EnvironmentFault` with its parts, for those who sort faults."""

    def __init__(
        self,
        message: str,
        kind: Literal["raised", "deadline", "not_finite", "nonsense", "crashed"],
        method: str,
        where: str,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.method = method
        self.where = where

    def __reduce__(self) -> tuple[type[AuthorFault], tuple[str, str, str, str]]:
        return type(self), (str(self), self.kind, self.method, self.where)


def frames_of(start: TracebackType | FrameType | None) -> list[Place]:
    """File and line of each frame, outermost first."""
    frames: list[Place] = []
    if isinstance(start, FrameType):
        frame: FrameType | None = start
        while frame is not None:
            frames.insert(0, (frame.f_code.co_filename, frame.f_lineno))
            frame = frame.f_back
        return frames
    while start is not None:
        frames.append((start.tb_frame.f_code.co_filename, start.tb_lineno))
        start = start.tb_next
    return frames


def own_place(owner: type, frames: Sequence[Place]) -> str | None:
    """`file:line` of the innermost frame in a file that defines `owner` or a base of it; None where there is none."""
    return innermost({code.co_filename for code in codes_of(owner)}, frames)


def innermost(files: Container[str], frames: Sequence[Place]) -> str | None:
    """`file:line` of the innermost frame in one of `files`; None where there is none."""
    return next((f"{file}:{line}" for file, line in reversed(frames) if file in files), None)


def place(owner: type, method: str, frames: Sequence[Place]) -> str:
    """The best known place: the author's frame, else any frame outside this library, else the method itself."""
    foreign = next((f"{file}:{line}" for file, line in reversed(frames) if not file.startswith(_LIBRARY)), None)
    return own_place(owner, frames) or foreign or source_of(owner, method)


def source_of(owner: type, method: str) -> str:
    """`file:line` of a method, or of the first function of its class where it is not the author's."""
    function = inspect.unwrap(getattr(owner, method)) if hasattr(owner, method) else None
    code = getattr(function, "__code__", None)
    if code is None or code.co_filename.startswith(_LIBRARY):
        code = next(codes_of(owner), code)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else f"{owner.__module__}.{owner.__qualname__}"


def is_own(owner: type, name: str) -> bool:
    """Did the author write this method (or is it this library's default, or nothing)?"""
    method = getattr(owner, name, None)
    return method is not None and not str(getattr(method, "__module__", "")).startswith("agentrl.")


def shorten(value: object, limit: int = 120) -> str:
    shown = repr(value)
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def codes_of(owner: type) -> Iterator[CodeType]:
    """The code of the functions of a class and its bases, this library's base classes left out."""
    for base in owner.__mro__:
        for member in vars(base).values():
            code = getattr(inspect.unwrap(member), "__code__", None) if callable(member) else None
            if code is not None and not code.co_filename.startswith(_LIBRARY):
                yield code
