"""A server process that we start, watch, stop and, after a crash of ours, reap.

Nothing that was started survives its owner: the warden ends the server's group, and a label file names the group
for the next start in case the warden was killed too.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from os import getpid
from pathlib import Path

from agentrl.engines import vllm_warden
from agentrl.errors import InfrastructureFault

POLL_SECONDS = 0.05
GRACE_SECONDS = 10.0
EXCEPTION = re.compile(r"\b\w+(Error|Exception): .*")
NOISE = ("nanobind", "- leaked", "- ... skipped", "resource_tracker", "warnings.warn")


@dataclass(frozen=True, slots=True)
class ProcessFiles:
    """Where a server writes and where its label lies."""

    log: Path
    label: Path


class ServerProcess:
    """One run of one command under a warden. `name` is how errors call it."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], files: ProcessFiles) -> None:
        self.name = name
        self._command = list(command)
        self._environment = dict(environment)
        self._files = files
        self._warden: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the command, its output appended to the log. Leftovers under the same label are ended first."""
        self._files.log.parent.mkdir(parents=True, exist_ok=True)
        reap(self._files.label)
        warden = [sys.executable, "-I", vllm_warden.__file__, str(getpid()), str(self._files.label), str(GRACE_SECONDS)]
        with self._files.log.open("ab") as log:
            self._warden = subprocess.Popen(
                [*warden, *self._command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        """None while it runs; 128 + n where signal n ended it."""
        if self._warden is None:
            return None
        code = self._warden.poll()
        return 128 - code if code is not None and code < 0 else code

    @property
    def group(self) -> int | None:
        """The server's process group, whose leader it is; None where it does not run."""
        try:
            return vllm_warden.labelled(self._files.label)
        except (OSError, ValueError, KeyError):
            return None

    async def stop(self) -> None:
        """SIGTERM to the group, SIGKILL after the grace. May be called twice."""
        if self._warden is None:
            return
        if self.exit_code is None:
            self._warden.terminate()
            await self._wait(GRACE_SECONDS + 10.0)
        if self.exit_code is None:
            self._warden.kill()
            await self._wait(5.0)
        # Ends the server also where the warden was killed before it could.
        await asyncio.to_thread(reap, self._files.label)

    async def _wait(self, seconds: float) -> None:
        for _ in range(int(seconds / POLL_SECONDS)):
            if self.exit_code is not None:
                return
            await asyncio.sleep(POLL_SECONDS)

    def obituary(self) -> str:
        """How it ended, in words: the exit code, where the log lies, and its last lines."""
        code = self.exit_code
        return (
            f"{self.name} {_manner(code)}. Its log is {self._files.log}; the last lines:\n{last_lines(self._files.log)}"
        )


def reap(label: Path, grace: float = 5.0) -> bool:
    """End the process group that a label names, if it is still the one labelled. True where something was ended."""
    try:
        note = json.loads(label.read_text())
        group, since, boot = int(note["group"]), str(note["started"]), str(note["boot"])
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError):
        label.unlink(missing_ok=True)
        return False
    leader = vllm_warden.started(group)
    # A process id is not given out again while a group of that number lives, so a group without its leader is ours.
    ours = boot == vllm_warden.boot() and (leader in ("", since)) and vllm_warden.group_alive(group)
    if ours:
        vllm_warden.end_group(group, grace)
    label.unlink(missing_ok=True)
    return ours


def last_lines(log: Path, count: int = 15) -> str:
    """The last lines of a log that say something: named exceptions, else other errors, else whatever there is."""
    try:
        with log.open(encoding="utf-8", errors="replace") as lines:
            tail = deque((line.rstrip() for line in lines), maxlen=400)
    except OSError as error:
        return f"(cannot be read: {error})"
    telling = [line for line in tail if line and not any(noise in line for noise in NOISE)]
    # One line each: every process of the server repeats the same traceback.
    named = list({match.group(): line for line in telling if (match := EXCEPTION.search(line))}.values())
    errors = [line for line in telling if "ERROR" in line or "rror: " in line]
    return "\n".join(f"  {line}" for line in (named or errors or telling)[-count:]) or "  (empty)"


def check_port(port: int) -> None:
    """Raises `InfrastructureFault` where somebody listens on the port already."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InfrastructureFault(
                f"port {port} cannot be used: {error}. Choose another, or None for a free one."
            ) from error


def _manner(code: int | None) -> str:
    if code is None:
        return "still runs"
    try:
        return f"was ended by {signal.Signals(code - 128).name} (exit code {code})"
    except ValueError:
        return f"ended with exit code {code}"
