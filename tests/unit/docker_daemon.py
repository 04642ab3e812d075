"""A Docker daemon for tests: the one that runs, or one of our own below a temporary folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_PATIENCE = 90.0
"Seconds in which a daemon comes up."


@contextlib.contextmanager
def daemon() -> Iterator[str]:
    """Its address; "" where the environment says it. Skips, with the reason, where none can be had."""
    if "DOCKER_HOST" in os.environ or answers("/var/run/docker.sock"):
        yield ""
        return
    program = shutil.which("dockerd")
    if program is None or os.geteuid() != 0:
        pytest.skip(
            "no Docker daemon answers, and none can be started: that takes root and `apt-get install docker.io`"
        )
    folder = Path(tempfile.mkdtemp(prefix="agentrl-docker-", dir="/tmp"))
    address = f"unix://{folder}/socket"
    places = [f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid"]
    # Containers here have no network, so the daemon needs neither a bridge nor the rules for one.
    command = [program, f"--host={address}", *places, "--iptables=false", "--bridge=none"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + _PATIENCE
        while not answers(f"{folder}/socket"):
            if process.poll() is not None or time.monotonic() > end:
                pytest.skip(f"dockerd does not start here: {(folder / 'log').read_text()[-400:]}")
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def answers(path: str) -> bool:
    """Asked without the package, whose failed connections stay open."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as line, contextlib.suppress(OSError):
        line.settimeout(5)
        line.connect(path)
        line.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        return b" 200 " in line.recv(99)
    return False
