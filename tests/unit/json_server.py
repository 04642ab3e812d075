"""A tiny real HTTP server on the loopback interface, for tests of what speaks HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Call:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Answer:
    """What to send back; a `bytes` body goes out as it is."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Server:
    url: str
    calls: list[Call]
    hung_up: asyncio.Event
    "Set when a client closed its connection before it was answered."


Handler = Callable[[Call], Awaitable[Answer | None]]


@asynccontextmanager
async def serve(handler: Handler) -> AsyncIterator[Server]:
    """Answers each request with `handler(call)`; None breaks the connection off."""
    connections: set[asyncio.StreamWriter] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(writer)
        try:
            while call := await _read(reader):
                server.calls.append(call)
                working, leaving = asyncio.ensure_future(handler(call)), asyncio.ensure_future(reader.read(1))
                await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if not working.done():
                    server.hung_up.set()
                    working.cancel()
                    return
                leaving.cancel()
                await asyncio.wait({leaving})
                answer = working.result()
                if answer is None:
                    return
                writer.write(_encode(answer))
                await writer.drain()
        except ConnectionError:
            return
        finally:
            connections.discard(writer)
            writer.close()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    server = Server(f"http://127.0.0.1:{port}", [], asyncio.Event())
    try:
        yield server
    finally:
        listening.close()
        for writer in list(connections):
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Call | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    raw = await reader.readexactly(int(headers.get("content-length", "0")))
    method, path, _ = first.split(" ")
    return Call(method, path, headers, json.loads(raw) if raw else None)


def _encode(answer: Answer) -> bytes:
    if isinstance(answer.body, bytes):
        raw = answer.body
    else:
        raw = b"" if answer.body is None else json.dumps(answer.body).encode()
    headers = {"content-length": str(len(raw)), **answer.headers}
    lines = [f"HTTP/1.1 {answer.status} Answer", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + raw
