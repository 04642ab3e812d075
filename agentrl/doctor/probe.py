"""One look at one thing, and all of them together, each with its own deadline.

A look that raises or hangs is a line of the table that says so, never the end of the table.
"""

from __future__ import annotations

import queue
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "missing", "broken"]
DEADLINE = 60.0
"Seconds that one look may take; most set a shorter one themselves."


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look found."""

    state: State
    detail: str


@dataclass(frozen=True, slots=True)
class Probe:
    """A look that can be taken."""

    name: str
    look: Callable[[], Finding]
    feature: str
    "What is lost without it."
    fix: str
    "The command, or the words, that bring it."
    required: bool = False
    "Nothing works while it is broken."


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the table."""

    check: str
    state: State
    detail: str
    lost: str
    "Empty where the state is ok."
    fix: str
    "Empty where the state is ok."
    required: bool


def examine(probes: Sequence[Probe], deadline: float = DEADLINE) -> list[Line]:
    """All looks at once; the lines are in the order of the probes."""
    answers: queue.Queue[tuple[int, Finding]] = queue.Queue()

    def look(place: int, probe: Probe) -> None:
        try:
            found = probe.look()
        except Exception as error:
            found = Finding("broken", f"{type(error).__name__}: {error}"[:300])
        answers.put((place, found))

    for place, probe in enumerate(probes):
        # Daemons: one that never comes back does not hold the command up at its end.
        threading.Thread(target=look, args=(place, probe), daemon=True).start()
    found: dict[int, Finding] = {}
    end = time.monotonic() + deadline
    while len(found) < len(probes):
        try:
            place, finding = answers.get(timeout=max(end - time.monotonic(), 0.0))
        except queue.Empty:
            break
        found[place] = finding
    late = Finding("broken", f"no answer within {deadline:g} s")
    return [_line(probe, found.get(place, late)) for place, probe in enumerate(probes)]


def sound(lines: Sequence[Line]) -> bool:
    """Whether nothing that is required is broken."""
    return not any(line.required and line.state == "broken" for line in lines)


def said_by(command: Sequence[str], deadline: float) -> tuple[int, str]:
    """Exit code and what a command said, at most its last line's 200 characters. Raises `OSError`, `TimeoutExpired`."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=deadline, stdin=subprocess.DEVNULL)
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    return done.returncode, lines[-1][:200] if lines else ""


def _line(probe: Probe, found: Finding) -> Line:
    well = found.state == "ok"
    return Line(
        probe.name, found.state, found.detail, "" if well else probe.feature, "" if well else probe.fix, probe.required
    )
