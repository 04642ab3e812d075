"""How long a check may take, and who is told how far it is.

A world whose episodes take seconds would be played for many minutes, so each check that plays tasks has a time: then
it makes do with what it has played, and the report says how much that was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

from agentrl.testing.report import CheckResult

T = TypeVar("T")

LEAST = 2
"What is always played of each check: two copies side by side need two tasks."
_PART = 4
"An episode of who has no way to win may last this part of its check's time."


class Progress(Protocol):
    """Who is told, while the check runs."""

    def playing(self, check: str, done: int, of: int) -> None: ...

    def found(self, result: CheckResult) -> None: ...


class Silent:
    def playing(self, check: str, done: int, of: int) -> None: ...

    def found(self, result: CheckResult) -> None: ...


class Pace:
    """The time of one run of the checks. `seconds` is a check's; `math.inf` plays everything to its end."""

    def __init__(self, seconds: float, progress: Progress) -> None:
        self.progress = progress
        self.played: dict[str, tuple[int, int]] = {}
        "By check: how many were played, and of how many, where it was fewer."
        self.cut = 0
        "Episodes that were left before their end."
        self._seconds = seconds

    @property
    def episode(self) -> float:
        """Seconds that an episode may last which is not meant to be won."""
        return self._seconds / _PART

    def in_time(self, check: str, wanted: Sequence[T]) -> Iterator[T]:
        """What of `wanted` there is time for, at least `LEAST`."""
        end = time.monotonic() + self._seconds
        for done, one in enumerate(wanted):
            if done >= LEAST and time.monotonic() > end:
                self.played[check] = (done, len(wanted))
                return
            self.progress.playing(check, done, len(wanted))
            yield one

    def told(self) -> str:
        """What was left out, in a sentence; empty where nothing was."""
        if not self.played and not self.cut:
            return ""
        fewer = [f"{check} {done} of {of}" for check, (done, of) in self.played.items()]
        cut = [f"{self.cut} losing episodes cut"] if self.cut else []
        said = f"It is slow, so there was no time for all ({self._seconds:g} s a check): {', '.join([*fewer, *cut])}."
        return said if math.isfinite(self._seconds) else ""
