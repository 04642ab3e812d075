"""No code gets out: every escape is tried on every backend, and on none at all to see that the check can fail."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from escapes import ESCAPES, Escape

from agentrl.errors import InfrastructureFault, MissingDependencyError
from agentrl.plugins import load_host
from agentrl.sandbox import Limits, Ran, Sandbox

LIMITS = Limits(seconds=1.0, memory=128 << 20, output=2000, processes=16, files=4 << 20)
LATE = LIMITS.seconds + 5.0
"Seconds after which a run has not been stopped, on a busy machine."


PAUSE = 0.3
"Seconds between two runs, in which what goes on shows itself."


@dataclass(frozen=True, slots=True)
class Bait:
    """What the host has put up, and what shows that somebody reached it."""

    folder: Path
    token: str
    mark: str
    victim: subprocess.Popen[bytes]
    port: int = 0

    def fill(self, code: str) -> str:
        names = {"FILE": self.folder / "secret.txt", "FOLDER": self.folder, "PORT": self.port}
        names |= {"PID": self.victim.pid, "ABSTRACT": self.mark, "MARK": self.mark}
        for name, value in names.items():
            code = code.replace(name, str(value))
        return code

    def open_socket(self) -> None:
        """To every user."""
        (self.folder / "socket").chmod(0o777)

    def written(self) -> bool:
        """A file of the host was."""
        return any(Path(folder, "mark").exists() for folder in (self.folder, "/tmp"))

    def marked(self) -> list[int]:
        """Processes of the host with the mark on their command line."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if self.mark.encode() in entry.read_bytes():
                    found.append(int(entry.parent.name))
        return found


@pytest.fixture
def laid(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bait]:
    """Files, a process, an environment variable and an open file with the secret."""
    token, mark = secrets.token_hex(12), f"mark{secrets.token_hex(6)}"
    # Readable by anyone, so that it is the walls that hold and not the permissions.
    folder = Path(tempfile.mkdtemp(prefix="agentrl-bait-", dir="/tmp"))
    folder.chmod(0o777)
    (folder / "secret.txt").write_text(token)
    monkeypatch.setenv("AGENTRL_SECRET", token)
    inherited = os.open(folder / "secret.txt", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    command = [sys.executable, "-c", f"import time; time.sleep(600)  # {token}"]
    victim = subprocess.Popen(command, env={"SECRET": token}, cwd=folder, start_new_session=True)
    bait = Bait(folder, token, mark, victim)
    yield bait
    os.close(inherited)
    victim.kill()
    victim.wait()
    for pid in bait.marked():
        os.kill(pid, signal.SIGKILL)
    for left in Path("/dev/shm").glob(f"*{mark}*"):
        left.unlink()
    shutil.rmtree(folder)


@pytest.fixture
async def bait(laid: Bait) -> AsyncIterator[Bait]:
    """With servers that tell the secret to whoever connects."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(laid.token.encode())
        writer.close()

    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0{laid.mark}")
    servers = [
        await asyncio.start_server(greet, "127.0.0.1", 0),
        await asyncio.start_unix_server(greet, laid.folder / "socket"),
        await asyncio.start_unix_server(greet, sock=abstract),
    ]
    laid.open_socket()
    yield replace(laid, port=servers[0].sockets[0].getsockname()[1])
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def container_sandbox(docker_host: str) -> Iterator[Sandbox]:
    sandbox: Sandbox = load_host().create("sandboxes", "docker", {"host": docker_host})
    yield sandbox
    asyncio.run(sandbox.close())


@pytest.fixture(params=["embedded", "bubblewrap", "docker"])
def walls(request: pytest.FixtureRequest) -> Sandbox:
    try:
        if request.param == "docker":
            made = request.getfixturevalue("container_sandbox")
        else:
            made = load_host().create("sandboxes", request.param)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    assert isinstance(made, Sandbox)
    return made


async def attempt(sandbox: Sandbox, escape: Escape, bait: Bait, patience: float = 20.0) -> list[str]:
    """What the escape achieved, in words; nothing where it failed. Processes have `patience` seconds to end."""
    session = await sandbox.open(LIMITS)
    runs: list[Ran] = []
    try:
        runs.append(await session.run(bait.fill(escape.code)))
        if escape.then:
            began = time.monotonic()
            await asyncio.sleep(PAUSE)
            then = escape.then.replace("BEGAN", str(began)).replace("ENDED", str(time.monotonic()))
            runs.append(await session.run(bait.fill(then)))
        if escape.elsewhere:
            other = await sandbox.open(LIMITS)
            runs.append(await other.run(bait.fill(escape.elsewhere)))
            await other.close()
        after = await session.run("print(6 * 7)")
    finally:
        await session.close()
    achieved = [f"it read {word}" for ran in runs for word in ("ESCAPED", bait.token) if word in ran.stdout]
    achieved += [f"it ran {ran.seconds:.1f} s" for ran in runs if ran.seconds > LATE]
    achieved += ["it printed too much" for ran in runs if len(ran.stdout) + len(ran.stderr) > 2 * LIMITS.output + 200]
    if any(character in ran.stdout + ran.stderr for ran in runs for character in "\x1b\x07\x9b"):
        achieved.append("it drove a terminal")
    if after.stdout != "42\n":
        achieved.append(f"it broke the session: {after}")
    if bait.victim.poll() is not None:
        achieved.append("it killed a process of the host")
    if bait.written():
        achieved.append("it wrote a file of the host")
    if await still_there(bait, patience):
        achieved.append("it left a process behind")
    return achieved


async def still_there(bait: Bait, patience: float) -> bool:
    """After `patience` seconds in which processes may end."""
    until = time.monotonic() + patience
    while bait.marked():
        if time.monotonic() > until:
            return True
        await asyncio.sleep(0.05)
    return False


@pytest.mark.parametrize("escape", ESCAPES, ids=lambda escape: escape.name)
async def test_no_code_gets_out(escape: Escape, walls: Sandbox, bait: Bait) -> None:
    assert await attempt(walls, escape, bait) == []


@pytest.mark.parametrize("escape", [e for e in ESCAPES if e.bare != "untried"], ids=lambda escape: escape.name)
async def test_without_walls_it_does(escape: Escape, bait: Bait) -> None:
    gets_out = escape.bare == "anyone" or (escape.bare == "root" and os.geteuid() == 0)
    unsafe = load_host().create("sandboxes", "unsafe")
    achieved = await attempt(unsafe, escape, bait, patience=2.0 if gets_out else 20.0)
    assert bool(achieved) == gets_out, achieved


def archive(bait: Bait) -> bytes:
    """With ways out of a folder, a device, and more than the folder holds."""
    told = io.BytesIO()
    with tarfile.open(fileobj=told, mode="w:gz", compresslevel=1) as tar:
        for name in (f"{bait.folder}/mark", f"..{bait.folder}/mark", "/tmp/mark"):
            tar.addfile(tarfile.TarInfo(name))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(bait.folder)
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("link/mark"))
        device = tarfile.TarInfo("device")
        device.type, device.devmajor, device.devminor = tarfile.BLKTYPE, 254, 0
        tar.addfile(device)
        huge = tarfile.TarInfo("huge")
        huge.size = 50 << 20
        tar.addfile(huge, io.BytesIO(bytes(huge.size)))
    return told.getvalue()


async def test_a_forged_snapshot_reaches_nothing(walls: Sandbox, bait: Bait) -> None:
    session = await walls.open(LIMITS)
    await session.run("x = [n for n in range(99)]")
    kept = await session.snapshot()
    await session.close()
    middle = len(kept) // 2
    changed = kept[:middle] + bytes([kept[middle] ^ 0xFF]) + kept[middle + 1 :]
    for forged in (b"", bytes(999), kept[:middle], changed, archive(bait)):
        with contextlib.suppress(InfrastructureFault):
            again = await walls.open(LIMITS, forged)
            ran = await again.run("print(6 * 7)")
            await again.close()
            assert ran.stdout == "42\n" and ran.seconds < LATE
    assert not bait.written()


def test_there_are_enough_of_them() -> None:
    assert len(ESCAPES) >= 30 and len({escape.name for escape in ESCAPES}) == len(ESCAPES)
    assert sum(escape.bare in ("anyone", "root") for escape in ESCAPES) >= 30
