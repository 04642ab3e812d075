"""The sandbox `bubblewrap`: a real Python in namespaces of its own, without containers and without root.

It sees a read-only system, an empty folder and itself: no network, no other process, nothing of the host's files.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from pathlib import Path

from agentrl.errors import MissingDependencyError
from agentrl.sandbox.guest import WORKER, GuestSession, settings
from agentrl.sandbox.local import LocalGuest
from agentrl.sandbox.protocol import Abilities, Limits, most_files

_OWN = 3
"Processes and threads that are ours: the two of bwrap, and the one that passes output on."
_FIRST_USER, _USERS = 1 << 20, 1 << 30
_ENV = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "2", "TMPDIR": "/tmp"}


# bwrap limits a folder's bytes but not how many files it holds, so another program makes it, one room further out.
_ROOM = ("--user", "--map-root-user", "--mount", "sh", "-c")
_NEEDED = (("bwrap", "bubblewrap"), ("unshare", "util-linux"), ("mount", "mount"))
"Programs, and the packages that bring them."
_FOLDER = 'mount -t tmpfs -o "$0" agentrl /mnt && mkdir -m 1777 /mnt/tmp /mnt/shm && exec "$@"'


class Bubblewrap:
    """Implements `protocol.Sandbox`: a process tree for each session. `memory` holds for each process of it."""

    abilities = Abilities(commands=True, snapshots="files")

    def __init__(self) -> None:
        """Raises `MissingDependencyError` where bwrap, or a Python that a stranger may run, is not there."""
        bwrap, unshare, _ = (_found(*needed) for needed in _NEEDED)
        # As root the namespaces would still be root's: a user that nobody is takes its place.
        self._stranger = os.geteuid() == 0
        python, lent = _interpreter(self._stranger)
        self._room = [unshare, *_ROOM, _FOLDER]
        self._walls, self._python = [bwrap, *_walls(lent)], python

    async def open(self, limits: Limits, snapshot: bytes | None = None) -> GuestSession:
        async def start() -> LocalGuest:
            return self._start(limits)

        session = GuestSession("bubblewrap", limits, start)
        await session.begin()
        if snapshot is not None:
            await session.restore(snapshot)
        return session

    async def close(self) -> None:
        """Nothing waits."""

    def _start(self, limits: Limits) -> LocalGuest:
        told = settings(limits, processes=limits.processes + _OWN, walls=True)
        size = f"size={limits.files},nr_inodes={most_files(limits)},nosuid,nodev"
        command = [*self._room, size, *self._walls, "--", self._python, "-I", "-c", WORKER, told]
        # A user of its own for each session, so that no two of them are each other's.
        user = _FIRST_USER + secrets.randbelow(_USERS) if self._stranger else None
        return LocalGuest(command, _ENV, "/", user=user, apart=True)


def _found(program: str, package: str) -> str:
    place = shutil.which(program)
    if place is None:
        raise MissingDependencyError(
            f"the sandbox 'bubblewrap' needs {program}, which is not installed. Run: apt-get install {package}"
        )
    return place


def _walls(lent: list[str]) -> list[str]:
    """What is separate, and what of the system is lent, read-only."""
    words = ["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"]
    words += ["--cap-drop", "ALL", "--uid", "1000", "--gid", "1000", "--hostname", "sandbox", "--clearenv"]
    words += [word for name, value in _ENV.items() for word in ("--setenv", name, value)]
    words += ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        top = Path("/", name)
        if top.is_symlink():
            words += ["--symlink", str(top.readlink()), str(top)]
        elif top.is_dir():
            words += ["--ro-bind", str(top), str(top)]
    words += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", "--ro-bind-try", "/etc/alternatives"]
    words += ["/etc/alternatives", "--proc", "/proc", "--dev", "/dev", "--bind", "/mnt/shm", "/dev/shm"]
    words += ["--remount-ro", "/dev", "--bind", "/mnt/tmp", "/tmp", *lent]
    return [*words, "--remount-ro", "/", "--chdir", "/tmp"]


def _interpreter(stranger: bool) -> tuple[str, list[str]]:
    """The Python inside and the words that lend it: this installation where it may be read, else the system's."""
    base, real = Path(sys.base_prefix), Path(os.path.realpath(sys.executable))
    readable = not stranger or all(folder.stat().st_mode & 0o001 for folder in (base, *base.parents))
    if readable and real.is_relative_to(base):
        if base.is_relative_to("/usr"):
            return str(real), []
        return str(Path("/python", real.relative_to(base))), ["--ro-bind", str(base), "/python"]
    system = shutil.which("python3", path="/usr/bin:/bin")
    if system is None:
        raise MissingDependencyError(
            f"the sandbox 'bubblewrap' needs a Python that every user may run; {base} is closed to others. "
            "Run: apt-get install python3"
        )
    return system, []
