"""The sandbox `unsafe`: a bare process of this machine, for code that one trusts, and to see what walls are for.

Limits keep accidents small; nothing keeps intent out. Files, network and other processes are open to it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile

from agentrl.sandbox.guest import WORKER, GuestSession, settings
from agentrl.sandbox.local import LocalGuest
from agentrl.sandbox.protocol import Abilities, Limits

_PROCESSES = 4096
"The system counts all processes of a user, not those of a session."


class Unsafe:
    """Implements `protocol.Sandbox`. Chosen by its name alone: that is the flag."""

    abilities = Abilities(commands=True, snapshots="files")

    async def open(self, limits: Limits, snapshot: bytes | None = None) -> UnsafeSession:
        session = UnsafeSession(limits, tempfile.mkdtemp(prefix="agentrl-unsafe-"))
        await session.begin()
        if snapshot is not None:
            await session.restore(snapshot)
        return session

    async def close(self) -> None:
        """Nothing waits."""


class UnsafeSession(GuestSession):
    """A folder, and a Python that works in it."""

    def __init__(self, limits: Limits, folder: str) -> None:
        self._folder = folder
        told = settings(limits, processes=_PROCESSES, walls=False)
        command = [sys.executable, "-I", "-c", WORKER, told]

        async def start() -> LocalGuest:
            env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"}
            return LocalGuest(command, env, folder, user=None, apart=False)

        super().__init__("unsafe", limits, start)

    async def close(self) -> None:
        await super().close()
        shutil.rmtree(self._folder, ignore_errors=True)
