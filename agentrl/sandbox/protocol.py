"""Running a model's code or commands with limits: what every sandbox offers, and what comes back.

No session has a network, whatever its backend; what code does wrong is a `Ran`, never an exception.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, Protocol, runtime_checkable

from agentrl.errors import ConfigError

Limit = Literal["", "time", "memory", "output", "processes", "files"]
CODE_LIMIT = 1_000_000
"Characters of code that one run takes."


@dataclass(frozen=True, slots=True)
class Limits:
    """What one session may take."""

    seconds: float = 5.0
    "Wall clock of one run."
    memory: int = 256 << 20
    "Bytes: of the interpreter (embedded), of each process (bubblewrap), of all together (docker)."
    output: int = 64 << 10
    "Bytes kept of what one run prints, of stdout and stderr each; the rest is thrown away."
    processes: int = 16
    "Processes and threads that live at once, the interpreter included."
    files: int = 32 << 20
    "Bytes of the session's own folder and of any file in it. One file a KiB, and a thousand more, is what it can hold."

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ConfigError(f"{field.name} of a sandbox is {value}; every limit is above 0.")


def most_files(limits: Limits) -> int:
    """How many a session's folder can hold: empty ones take the system's memory too, beside `Limits.files`."""
    return 1_000 + limits.files // 1024


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of one run."""

    stdout: str
    "What it printed; of code that ends in an expression, its `repr` follows, as at a prompt."
    stderr: str
    "With the traceback where the code raised."
    exit: int | None
    "0 where it ended well, the exit code otherwise (1 where code raised); None where a limit ended it."
    limit: Limit = ""
    "The limit that was hit. Output beyond its limit is cut and the run goes on."
    lost: bool = False
    "The session begins anew with the next run: its names and files are gone."
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.exit == 0


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a backend can do besides running Python."""

    commands: bool
    "It runs programs too, and has files."
    snapshots: Literal["none", "files", "exact"]
    'What a snapshot holds: the session\'s folder ("files") or names and values as well ("exact").'


class Session(Protocol):
    """One place with a memory: names (and files) of a run are there in the next. Not for two runs at once."""

    async def run(self, code: str) -> Ran:
        """Run Python. Raises `InfrastructureFault` where the sandbox itself failed."""
        ...

    async def command(self, *words: str) -> Ran:
        """Run a program in the session's folder. Raises `ConfigError` where the backend has none."""
        ...

    async def snapshot(self) -> bytes:
        """For `Sandbox.open` of the same backend. Raises `ConfigError` where the backend has none."""
        ...

    async def close(self) -> None:
        """End it with everything that it started. May be called twice."""
        ...


@runtime_checkable
class Sandbox(Protocol):
    """Opens sessions that see nothing of the host and nothing of each other. Made once, used from one event loop."""

    @property
    def abilities(self) -> Abilities: ...

    async def open(self, limits: Limits, snapshot: bytes | None = None) -> Session:
        """A new session, or one that goes on from a snapshot. Raises `InfrastructureFault` where none can be had."""
        ...

    async def close(self) -> None:
        """Give back what waits for further sessions. Sessions that are open stay so."""
        ...


def lacks(backend: str, what: str, others: str) -> ConfigError:
    """For a verb that a backend does not offer."""
    return ConfigError(f"the sandbox {backend!r} has no {what}; {others} has.")
