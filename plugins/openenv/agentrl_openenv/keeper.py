"""Runs one server and never leaves it behind: a small program that `launch` starts.

It imports the standard library only. When its input closes, which the end of its driver does however that came about,
it ends the server with everything that the server started.

    python -I keeper.py GRACE_SECONDS COMMAND...
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
LOOK_SECONDS = 0.2


def main(arguments: list[str]) -> int:
    grace, command = float(arguments[0]), arguments[1:]
    # A Ctrl-C or a hang-up of the terminal is for the driver, which then closes our input.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        # What the server leaves to itself becomes our child and can be found.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_ordinary)
    except OSError as error:
        print(f"{command[0]} does not start: {error}", file=sys.stderr)
        return 127
    while server.poll() is None:
        if select.select([sys.stdin], [], [], LOOK_SECONDS)[0] and not os.read(sys.stdin.fileno(), 1 << 16):
            break
    _end(server, grace)
    return 128 - server.returncode if server.returncode < 0 else server.returncode


def _ordinary() -> None:
    """What is ignored is inherited: the server hears the signals again."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _end(server: subprocess.Popen[bytes], grace: float) -> None:
    """SIGTERM, and SIGKILL to whoever is left after `grace` seconds."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        until = time.monotonic() + seconds
        for pid in _below():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        while time.monotonic() < until and _below():
            server.poll()
            _reap()
            time.sleep(0.02)
            if number == signal.SIGKILL:
                for pid in _below():
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, number)
    server.wait()


def _below() -> list[int]:
    """Our descendants that are no zombies."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            state, parent = entry.read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                parents[int(entry.parent.name)] = int(parent)
    found: set[int] = set()
    fresh = {os.getpid()}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return sorted(found)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
