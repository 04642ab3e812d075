"""The Java process in which ScienceWorld's simulator runs, and the ones that wait for the next episode.

A process serves one episode at a time and is used again after it; one in which anything went wrong is ended.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway
from py4j.protocol import Py4JError, Py4JNetworkError
from scienceworld.constants import BASEPATH, JAR_PATH

from agentrl import EnvironmentFault
from agentrl.errors import MissingDependencyError

T = TypeVar("T")

HEAP = "-Xmx256m"
"Every task was loaded and won in it. The process takes about 360 MB; without a limit it grows to 1.4 GB."
OPTIONS = (
    HEAP,
    "-XX:+UseSerialGC",
    # The simulator walks through sets of objects that have no hash of their own, so the order, and with it each
    # temperature, would follow chance. With one hash for all, the order is that in which they were put there.
    "-XX:+UnlockExperimentalVMOptions",
    "-XX:hashCode=2",
)
PATIENCE = 5.0
"Seconds that a process has to end before it is killed."
_TAIL = 4
"Lines of what Java wrote that an error shows."

# It writes every broken connection with its traceback; the fault that is raised says it once.
logging.getLogger("py4j").setLevel(logging.CRITICAL + 1)


class Java:
    """A running simulator. Raises `EnvironmentFault` where it does not start, and where it is lost in a call."""

    def __init__(self) -> None:
        self.sound = True
        "Nothing was raised in it so far."
        program = java_program()
        self._wrote: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        try:
            port, token, self._process = launch_gateway(
                classpath=JAR_PATH,
                javaopts=list(OPTIONS),
                die_on_exit=True,
                redirect_stderr=self._wrote,
                java_path=program,
                enable_auth=True,
                cwd=BASEPATH,
                return_proc=True,
            )
        except (OSError, ValueError, Py4JError) as error:
            raise EnvironmentFault(f"Java did not start: {error}. {self._said()}") from error
        parameters = GatewayParameters(auto_field=True, port=port, auth_token=token)
        self._gateway = JavaGateway(gateway_parameters=parameters, java_process=self._process)

    def simulation(self) -> Any:
        """A world of its own in this process: the simulator's `PythonInterface`."""
        return self.ask(lambda: self._gateway.jvm.scienceworld.runtime.pythonapi.PythonInterface())

    def ask(self, call: Callable[[], T]) -> T:
        """What `call` says. Raises `EnvironmentFault` where Java raised or is gone."""
        try:
            return call()
        except Py4JError as error:
            self.sound = False
            said = str(error).strip().splitlines()[:_TAIL]
            if isinstance(error, Py4JNetworkError):
                # Its connection is lost a moment before it is seen to have ended.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(PATIENCE)
            code = self._process.poll()
            state = "" if code is None else f" Its process ended with code {code}. {self._said()}"
            raise EnvironmentFault(f"ScienceWorld's simulator failed: {' '.join(said)}.{state}") from error

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    def end(self) -> None:
        """May be called twice."""
        with contextlib.suppress(Exception):
            self._gateway.shutdown()
        with contextlib.suppress(OSError, ValueError):
            # It ends with its input.
            self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE)
        self._wrote.close()

    def _said(self) -> str:
        self._wrote.seek(0)
        lines = [line.strip() for line in self._wrote if line.strip()]
        return f"It wrote last: {' / '.join(lines[-_TAIL:])}" if lines else "It wrote nothing."


class Waiting:
    """Processes without an episode. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Java] = []

    def take(self) -> Java:
        while True:
            with self._lock:
                java = self._idle.pop() if self._idle else None
            if java is None:
                return Java()
            if java.alive:
                return java
            java.end()

    def give_back(self, java: Java) -> None:
        if not (java.sound and java.alive):
            java.end()
            return
        with self._lock:
            self._idle.append(java)

    def end(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for java in idle:
            java.end()


WAITING = Waiting()
"Of this Python process: a worker plays one episode at a time, so one waits there at most."
atexit.register(WAITING.end)


def java_program() -> str:
    """The one of JAVA_HOME, else of the path. Raises `MissingDependencyError` with what installs it."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(Path(home) / "bin" / "java" if home else "java")
    if found is None:
        where = f"under JAVA_HOME ({home})" if home else "on the path"
        raise MissingDependencyError(
            f"ScienceWorld's simulator runs in Java, and there is no program `java` {where}. "
            "Run: apt-get install openjdk-17-jre-headless"
        )
    return found
