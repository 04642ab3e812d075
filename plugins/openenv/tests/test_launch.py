"""Servers that are started here: used again, more of them where all are taken, and ended with what they started."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from agentrl_openenv.launch import Program, Server, Servers

from agentrl import EnvironmentFault

LIGHT = Path(__file__).parent / "light_server.py"


def program(mark: Path, *more: str, sessions: int = 1, keep: float = 60.0) -> Program:
    return Program("", (sys.executable, str(LIGHT), "{port}", str(mark), *more), sessions, 60.0, keep)


def marked(mark: Path) -> list[int]:
    """Living processes with the mark in their command."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(mark).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


async def test_a_server_is_used_again_and_ends_with_the_process_that_left_its_session(tmp_path: Path) -> None:
    servers = Servers()
    first = await servers.take(program(tmp_path))
    await servers.give_back(first)
    again = await servers.take(program(tmp_path))
    assert again is first and first.alive
    # The keeper, the server and what the server started.
    assert len(marked(tmp_path)) == 3
    first.fit = False
    await servers.give_back(first)
    assert marked(tmp_path) == [] and not first.alive


async def test_a_taken_server_gets_a_neighbour_and_sessions_say_when(tmp_path: Path) -> None:
    servers = Servers()
    two = program(tmp_path, sessions=2, keep=0.0)
    taken = await asyncio.gather(*(servers.take(two) for _ in range(3)))
    try:
        assert taken[0] is taken[1] is not taken[2]
    finally:
        for server in taken:
            await servers.give_back(server)
    assert marked(tmp_path) == []


async def test_a_server_that_waited_in_vain_ends(tmp_path: Path) -> None:
    servers = Servers()
    server = await servers.take(program(tmp_path, keep=0.01))
    await servers.give_back(server)
    assert await server.died(60.0)


async def test_a_server_that_does_not_come_up_says_what_it_printed(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"ended with exit code 7 before it answered. It printed:\nthe vault is"):
        await Servers().take(program(tmp_path, "fail"))


async def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="no-such-program does not start"):
        await Servers().take(Program(command=("no-such-program", "{port}")))


def test_a_driver_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import asyncio, os, signal\n"
        "from agentrl_openenv.launch import Program, Servers\n"
        f"program = Program(command={program(tmp_path).command!r})\n"
        "asyncio.run(Servers().take(program))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), timeout=60)
    assert done.returncode == -signal.SIGKILL
    until = time.monotonic() + 60
    while marked(tmp_path) and time.monotonic() < until:
        time.sleep(0.02)
    assert marked(tmp_path) == []


async def test_a_server_that_nobody_ended_ends_with_its_owner(tmp_path: Path) -> None:
    server: Server | None = Server(program(tmp_path))
    assert server is not None
    await server.ready()
    server = None
    assert marked(tmp_path) == []
