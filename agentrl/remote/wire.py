"""What a driver and its worker say to each other: frames of JSON over a socket, a request and its reply in turn.

Each verb has one type of what is sent and one of what comes back; both sides read them from `VERBS`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from agentrl.errors import EnvironmentFault
from agentrl.remote.address import Address
from agentrl.remote.declaration import Declaration
from agentrl.types import JSON, Action, Observation, StepResult, Task, ToolSpec

RandomState: TypeAlias = tuple[int, tuple[int, ...], float | None]
"`random.Random.getstate()`."

LARGEST = 1 << 30
"Bytes of one message."
HEADER = struct.Struct("!I")


class Opening(msgspec.Struct):
    address: Address
    options: dict[str, JSON]
    called: str = ""
    "What the environment is registered as, for its errors; the name of its class where nothing is said."


class Signature(msgspec.Struct):
    """What can be known of a factory without calling it."""

    summary: str
    options: dict[str, JSON]
    "Default of each option that has one."
    required: tuple[str, ...]
    open_ended: bool
    "Takes `**options` of any name as well."


class Beginning(msgspec.Struct):
    """Of an author's iterable: `what` is `tasks`, `oracle`, `demonstrate` or `cheats`."""

    what: str
    task: Task | None = None
    split: str = ""


class More(msgspec.Struct):
    line: int
    count: int
    rng: RandomState | None = None
    "Where the author draws from a generator: its state before, and in the reply after."


class Items(msgspec.Struct):
    items: list[msgspec.Raw]
    "Each a `Task` or an `Action`."
    done: bool
    rng: RandomState | None = None


class Reset(msgspec.Struct):
    task: Task
    max_steps: int | None


VERBS: Mapping[str, tuple[Any, Any]] = {
    "describe": (Address, Signature),
    "open": (Opening, Declaration),
    "reset": (Reset, Observation),
    "step": (Action, StepResult),
    "grade": (None, StepResult),
    "snapshot": (None, Any),
    "restore": (Any, Observation),
    "begin": (Beginning, dict[str, int]),
    "more": (More, Items),
    "close": (None, None),
}


class Request(msgspec.Struct, array_like=True):
    verb: str
    seconds: float
    "After which the worker ends itself."
    body: msgspec.Raw


class Failed(msgspec.Struct):
    """An error that the worker raised on purpose; the last three are of an `AuthorFault`."""

    error: str
    text: str
    kind: str = ""
    method: str = ""
    where: str = ""


class Reply(msgspec.Struct, array_like=True):
    body: msgspec.Raw
    tools: tuple[ToolSpec, ...] | None = None
    "Where they are others than before."
    failed: Failed | None = None


def encode(value: Any) -> bytes:
    """Raises `EnvironmentFault` for what has no JSON."""
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise EnvironmentFault(f"what travels between an environment and its driver is JSON: {error}.") from error


def frame(message: Request | Reply) -> bytes:
    """Raises `EnvironmentFault` for a message that is too large."""
    body = msgspec.json.encode(message)
    if len(body) > LARGEST:
        raise EnvironmentFault(f"a message of {len(body):,} bytes cannot be sent; allowed are {LARGEST:,}.")
    return HEADER.pack(len(body)) + body


class Inbox:
    """Bytes that came in, as frames."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def __len__(self) -> int:
        """Bytes that nobody took."""
        return len(self._bytes)

    def add(self, some: bytes) -> None:
        self._bytes += some

    def take(self) -> bytes | None:
        """The next whole frame; None where more has to come in. Raises `ValueError` for a length that none has."""
        if len(self._bytes) < HEADER.size:
            return None
        (length,) = HEADER.unpack_from(self._bytes)
        if length > LARGEST:
            raise ValueError(f"a message of {length:,} bytes was announced; allowed are {LARGEST:,}")
        end = HEADER.size + length
        if len(self._bytes) < end:
            return None
        taken = bytes(self._bytes[HEADER.size : end])
        del self._bytes[:end]
        return taken
