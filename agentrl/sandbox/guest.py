"""A session whose Python runs elsewhere: asked over a line of frames, ended when it is late, dead or talks nonsense.

What the other side says is checked and bounded; it can spoil its own session and nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Literal, Protocol

import msgspec

from agentrl.errors import InfrastructureFault
from agentrl.sandbox import seccomp
from agentrl.sandbox.freezer import Freezer
from agentrl.sandbox.printed import STREAMS, Printed
from agentrl.sandbox.protocol import CODE_LIMIT, Limit, Limits, Ran

WORKER = Path(__file__).with_name("worker.py").read_text(encoding="utf-8")
"What the other side's interpreter is given to run."
_GRACE = 1.0
"Seconds beyond a run's own limit, in which the worker may stop the run itself and keep its names."
_START = 20.0
"Seconds that a start may take."
_TRANSFER = 30.0
"Seconds that an archive may take, whatever a run's limit: a folder as full as it may be took ten on busy cores."
_SPARE = 8 << 20
"Bytes of an archive beside the files in it: heads, for as many small ones as memory takes."
_FRAME = 4 << 20
"Bytes of one frame: 64 KiB of output, each byte of which may take six in JSON, and more."
_FRAMED = 64
"Bytes that one printed byte takes at most: in a frame of its own, escaped."


class _Reply(msgspec.Struct, forbid_unknown_fields=True):
    kind: Literal["ready", "out", "file", "done"]
    stream: Literal["stdout", "stderr"] = "stdout"
    text: str = ""
    run: int = 0
    exit: Annotated[int, msgspec.Meta(ge=-(1 << 31), lt=1 << 32)] = 0
    limit: Limit = ""


class Guest(Protocol):
    """One interpreter on the other side."""

    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes:
        """What came; empty once the other side is gone."""
        ...

    def freezer(self) -> Freezer | None:
        """Of its processes; None where they are out of reach. Asked once, before any code has run.

        Raises `InfrastructureFault`.
        """
        ...

    async def end(self) -> Ending:
        """Kill it with everything that it started. May be called twice."""
        ...


class Ending(msgspec.Struct, frozen=True):
    """How a guest went."""

    limit: Limit = ""
    "The limit that had ended it already, where the backend knows."
    last_words: str = ""
    "What the backend itself said of a start that failed."
    fault: str = ""
    "What ended it, where nothing that runs inside could have."


def settings(limits: Limits, *, processes: int, walls: bool) -> str:
    """What the worker is told, as JSON. walls: nobody but the session is in sight, and calls may be refused."""
    told = {"output": limits.output, "files": limits.files, "memory": limits.memory}
    refuse = seccomp.program().hex() if walls else ""
    return json.dumps({**told, "processes": processes, "alone": walls, "refuse": refuse})


class GuestSession:
    """Implements `protocol.Session` over whatever starts a `Guest`."""

    def __init__(self, name: str, limits: Limits, start: Callable[[], Awaitable[Guest]]) -> None:
        self._name, self._limits, self._start = name, limits, start
        self._inbox = bytearray()
        self._packed = bytearray()
        self._room = 0
        "Bytes that may still come: more is a flood, from which the others on this event loop are kept."
        self._closed = False
        self._runs = 0
        self._freezer: Freezer | None = None
        self.guest: Guest | None = None

    async def begin(self) -> None:
        """Raises `InfrastructureFault` where no interpreter comes up."""
        self._inbox.clear()
        self._room = _FRAME
        guest = self.guest = await self._start()
        try:
            async with asyncio.timeout(_START):
                reply = await self._next(guest)
                if reply is not None and reply.kind == "ready":
                    self._freezer = guest.freezer()
                    await self._freeze()
        except TimeoutError:
            reply = None
        except (asyncio.CancelledError, InfrastructureFault):
            await self._drop()
            raise
        if reply is None or reply.kind != "ready":
            words = (await self._drop()).last_words
            raise InfrastructureFault(f"the sandbox {self._name!r} does not start: {words or 'it said nothing'}.")

    async def run(self, code: str) -> Ran:
        if len(code) > CODE_LIMIT:
            return Ran("", f"the code has {len(code):,} characters; {CODE_LIMIT:,} are allowed.", 1)
        return await self._ask({"code": code}, self._limits.seconds)

    async def command(self, *words: str) -> Ran:
        return await self._ask({"words": list(words)}, self._limits.seconds)

    async def snapshot(self) -> bytes:
        """The session's folder, packed; what is in it is never unpacked here."""
        ran = await self._ask({"keep": True}, _TRANSFER)
        if not ran.ok:
            raise InfrastructureFault(f"the files of a session of {self._name!r} cannot be kept: {ran.stderr.strip()}")
        return bytes(self._packed)

    async def restore(self, snapshot: bytes) -> None:
        """Unpack a snapshot in a fresh session. Raises `InfrastructureFault` where it is none."""
        ran = await self._ask({"put": base64.b64encode(snapshot).decode()}, _TRANSFER)
        if not ran.ok:
            await self.close()
            raise InfrastructureFault(f"the sandbox {self._name!r} cannot go on from a snapshot: {ran.stderr.strip()}")

    async def close(self) -> None:
        self._closed = True
        await self._drop()

    async def _ask(self, request: dict[str, object], seconds: float) -> Ran:
        if self._closed:
            raise InfrastructureFault(f"a session of the sandbox {self._name!r} was used after `close`: open another.")
        began = time.perf_counter()
        if self.guest is None:
            await self.begin()
        assert self.guest is not None
        printed = Printed(self._limits.output)
        self._packed.clear()
        self._room = _FRAME + _FRAMED * len(STREAMS) * self._limits.output
        if "keep" in request:
            self._room += 2 * (self._limits.files + _SPARE)
        self._runs += 1
        body = json.dumps({**request, "seconds": seconds, "run": self._runs}).encode()
        done: _Reply | None = None
        limit: Limit = ""
        try:
            async with asyncio.timeout(seconds + _GRACE):
                if self._freezer is not None:
                    self._freezer.thaw()
                await self.guest.send(len(body).to_bytes(4, "big") + body)
                done = await self._listen(self.guest, printed)
            if done is not None and not await self._freeze():
                done = None
        except TimeoutError:
            limit = "time"
        except (asyncio.CancelledError, InfrastructureFault):
            await self._drop()
            raise
        if done is None:
            ending = await self._drop()
            if ending.fault:
                raise InfrastructureFault(f"a session of the sandbox {self._name!r} is gone: {ending.fault}.")
            limit = limit or ending.limit
        else:
            limit = done.limit
        stopped = done is None or limit == "time"
        return Ran(
            printed.text("stdout"),
            printed.text("stderr"),
            None if stopped or done is None else done.exit,
            limit or ("output" if printed.over else ""),
            done is None,
            time.perf_counter() - began,
        )

    async def _freeze(self) -> bool:
        """Until the next run nothing of the session goes on; False where it does all the same."""
        return self._freezer is None or await self._freezer.freeze()

    async def _listen(self, guest: Guest, printed: Printed) -> _Reply | None:
        """The end of the run, with its output on the way; None where the guest is gone or not to be understood."""
        while (reply := await self._next(guest)) is not None:
            # A number that does not fit is an answer to another run, or forged.
            if reply.kind == "done" and reply.run == self._runs:
                return reply
            if reply.kind == "out":
                printed.add(reply.stream, reply.text)
            elif reply.kind != "file" or not self._pack(reply.text):
                return None
        return None

    def _pack(self, text: str) -> bool:
        """Take in a piece of an archive; False where it is none, or more than the session's files can be."""
        try:
            self._packed += base64.b64decode(text, validate=True)
        except ValueError:
            return False
        return len(self._packed) <= self._limits.files + _SPARE

    async def _next(self, guest: Guest) -> _Reply | None:
        while True:
            size = int.from_bytes(self._inbox[:4], "big")
            if len(self._inbox) >= 4 and size > _FRAME:
                return None
            if len(self._inbox) >= 4 + size and len(self._inbox) >= 4:
                body = bytes(self._inbox[4 : 4 + size])
                del self._inbox[: 4 + size]
                try:
                    return msgspec.json.decode(body, type=_Reply)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    return None
            data = await guest.receive()
            self._room -= len(data)
            if not data or self._room < 0:
                return None
            self._inbox += data
            # Where more is there already, nothing else would have its turn, and no deadline would be seen.
            await asyncio.sleep(0)

    async def _drop(self) -> Ending:
        guest, self.guest, self._freezer = self.guest, None, None
        return await guest.end() if guest is not None else Ending()
