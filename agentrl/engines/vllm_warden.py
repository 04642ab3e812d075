"""Runs one server as a child and never leaves it behind: a small program that `vllm_process` starts.

It imports the standard library only and ends the server's whole process group when it is told to stop, when the
server ends, and when the process that asked for it is gone, however that died.

    python -I vllm_warden.py PARENT_PID LABEL_FILE GRACE_SECONDS COMMAND...
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.1


def main(arguments: list[str]) -> int:
    parent, label, grace, command = int(arguments[0]), Path(arguments[1]), float(arguments[2]), arguments[3:]
    stops: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stops.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    # Its own session: a Ctrl-C in the terminal is for the driver, which then stops the server in order.
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_end_with_warden)
    _write_label(label, server.pid)
    try:
        # Polling the parent id, not a death signal of our own: that one fires when the parent's thread ends.
        while server.poll() is None and not stops and os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        end_group(server.pid, grace, server)
    finally:
        label.unlink(missing_ok=True)
    code = server.wait()
    return 128 - code if code < 0 else code


def end_group(group: int, grace: float, leader: subprocess.Popen[bytes] | None = None) -> None:
    """SIGTERM to every process of the group, SIGKILL to what is left after `grace` seconds."""
    segments = {segment for pid in members(group) for segment in _shared_memory(pid)}
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
        until = time.monotonic() + seconds
        while time.monotonic() < until and group_alive(group):
            if leader is not None:
                leader.poll()
            time.sleep(0.05)
    if not group_alive(group):
        for segment in segments:
            segment.unlink(missing_ok=True)


def group_alive(group: int) -> bool:
    """Whether a process of the group still runs; zombies do not count."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return bool(members(group)) or not Path("/proc").is_dir()


def members(group: int) -> list[int]:
    """The processes of the group, without zombies. Empty where there is no /proc."""
    processes = Path("/proc")
    pids = [int(entry.name) for entry in processes.iterdir() if entry.name.isdigit()] if processes.is_dir() else []
    found = {pid: fields for pid in pids if (fields := _stat(pid)) is not None}
    return [pid for pid, fields in found.items() if int(fields[2]) == group and fields[0] != "Z"]


def _shared_memory(pid: int) -> list[Path]:
    """Segments of Python's shared_memory that a process maps: a killed process leaves them behind."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return []
    return [Path(line[line.index("/dev/shm/psm_") :]) for line in lines if "/dev/shm/psm_" in line]


def labelled(label: Path) -> int:
    """The process group that a label names. Raises `OSError`, `ValueError` or `KeyError` where it names none."""
    return int(json.loads(label.read_text())["group"])


def started(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty where it is gone. With the id it names a process."""
    fields = _stat(pid)
    return fields[19] if fields is not None else ""


def boot() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name: state, parent, group, ... start time at index 19."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        return None


def _write_label(label: Path, group: int) -> None:
    aside = label.with_suffix(".new")
    aside.write_text(json.dumps({"group": group, "started": started(group), "boot": boot()}))
    aside.replace(label)


def _end_with_warden() -> None:
    # Were the warden itself killed, the server is told to end. Safe here: the warden has one thread.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
