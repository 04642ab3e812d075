"""Ways out of a sandbox, each with what shows that it worked; `test_sandbox_escapes` tries them on every backend.

An escape prints the host's token, or `ESCAPED`, only where it succeeded; where only the host can tell, the host looks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Escape:
    name: str
    bare: str
    """Who gets through where there are no walls: "anyone", "root" or "never" (limits hold there as well); "untried"
    where success would harm the machine, or hangs on it. So it is known that the check can fail."""
    code: str
    "`FILE`, `FOLDER`, `PORT`, `PID`, `ABSTRACT` and `MARK` stand for what the host has put up."
    then: str = ""
    "A second run, in the same session, after a pause: from `BEGAN` to `ENDED`, by a clock that all sessions share."
    elsewhere: str = ""
    "A run in another session, while the first one is open."


def read_escapes(text: str) -> tuple[Escape, ...]:
    """Blocks that begin with `=== name (bare)`, of code, with `--- then` or `--- elsewhere` between runs."""
    found = []
    for name, bare, body in re.findall(r"^=== (\w+) \((\w+)\)\n(.*?)(?=^===|\Z)", text, re.DOTALL | re.MULTILINE):
        first, *others = re.split(r"^--- (then|elsewhere)\n", body, flags=re.MULTILINE)
        found.append(Escape(name, bare, first, **dict(zip(others[::2], others[1::2], strict=True))))
    return tuple(found)


ESCAPES = read_escapes(Path(__file__).with_name("escapes.txt").read_text(encoding="utf-8"))
