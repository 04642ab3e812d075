"""How much memory processes take, as the system counts it.

What several processes share is divided among them, so that sums are what the machine has to give.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def proportional(pids: Iterable[int]) -> int:
    """Bytes of the processes (their proportional set); one that has ended counts nothing."""
    return sum(_proportional(pid) for pid in pids)


def family() -> set[int]:
    """This process and all that descend from it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, frontier = {os.getpid()}, {os.getpid()}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier}
        found |= frontier
    return found


def marked(mark: bytes) -> set[int]:
    """Processes whose command line holds `mark`, whoever started them."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
