"""One connection to an MCP server, alive in a task of its own.

The SDK's contexts are entered and left in one task, and episodes are played, cut and closed in several: so every
request is handed to that task, and whoever waits for an answer may be cancelled without harm.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from mcp import Client, StdioServerParameters
from mcp.client import Transport
from mcp.client.stdio import stdio_client
from mcp.types import CallToolResult, TextContent

from agentrl import EnvironmentFault, ToolSpec

START_SECONDS = 60.0
"What a server has at least to come up, however short its calls are."
CLOSE_SECONDS = 15.0
_TAIL, _TAIL_SIZE = 4, 2000
"Lines of what a server logged that an error shows, and in how many bytes they are looked for."


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool said."""

    text: str
    error: bool
    "The server calls it an error: for the model to read."


@dataclass(frozen=True, slots=True)
class Server:
    """How to reach a server: a command that speaks over its standard streams, or the address of one that is up."""

    command: tuple[str, ...] = ()
    url: str = ""
    environment: Mapping[str, str] | None = None

    def transport(self, folder: Path, wrote: TextIO) -> Transport | str:
        """`{folder}` in the command stands for the episode's own folder. What the server logs goes to `wrote`."""
        if self.url:
            return self.url
        first, *rest = [word.replace("{folder}", str(folder)) for word in self.command]
        environment = None if self.environment is None else dict(self.environment)
        parameters = StdioServerParameters(command=first, args=rest, env=environment, cwd=folder)
        return stdio_client(parameters, errlog=wrote)

    def __str__(self) -> str:
        return self.url or " ".join(self.command)


class Connection:
    """Raises `EnvironmentFault` wherever the server does not start, does not answer, or ends."""

    def __init__(self, server: Server, folder: Path, deadline: float) -> None:
        self.tools: tuple[ToolSpec, ...] = ()
        self._server = server
        self._folder = folder
        self._deadline = deadline
        self._calling = False
        self._wrote: TextIO = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._asked: asyncio.Queue[tuple[str, Mapping[str, Any], asyncio.Future[Answer]] | None] = asyncio.Queue()
        self._up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live(), name=f"mcp {server}")

    async def open(self) -> None:
        await asyncio.shield(self._up)

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Answer:
        if self._task.done():
            raise self._lost("it has ended")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked.put_nowait((name, arguments, answer))
        await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise self._lost("it ended in the middle of a call")
        return answer.result()

    async def close(self) -> None:
        """The server that was started ends, also in the middle of a call; one behind an address stays."""
        self._asked.put_nowait(None)
        if self._calling:
            self._task.cancel()
        # The SDK closes its input, then ends it, with some seconds of patience for each.
        await asyncio.wait({self._task}, timeout=CLOSE_SECONDS)
        if not self._task.done():
            raise self._lost(f"it did not end within {CLOSE_SECONDS:g} s")
        self._wrote.close()

    async def _live(self) -> None:
        try:
            transport = self._server.transport(self._folder, self._wrote)
            async with Client(transport, read_timeout_seconds=max(START_SECONDS, self._deadline)) as client:
                self.tools = await _tools(client)
                self._up.set_result(None)
                while (asked := await self._asked.get()) is not None:
                    name, arguments, answer = asked
                    await self._answer(client, name, arguments, answer)
        except BaseException as error:
            if not self._up.done():
                self._up.set_exception(self._lost(_reason(error)))
            if not isinstance(error, Exception | BaseExceptionGroup):
                raise

    async def _answer(
        self, client: Client, name: str, arguments: Mapping[str, Any], answer: asyncio.Future[Answer]
    ) -> None:
        self._calling = True
        try:
            result = await client.call_tool(name, dict(arguments), read_timeout_seconds=self._deadline)
        except Exception as error:
            if not answer.cancelled():
                answer.set_exception(self._lost(f"the call of {name!r} failed: {_reason(error)}"))
        else:
            if not answer.cancelled():
                answer.set_result(Answer(_text(result), bool(result.is_error)))
        self._calling = False

    def _lost(self, why: str) -> EnvironmentFault:
        return EnvironmentFault(f"the MCP server `{self._server}` is lost: {why}.{self._said()}")

    def _said(self) -> str:
        """The last lines that the server logged."""
        if self._wrote.closed:
            return ""
        size = self._wrote.seek(0, os.SEEK_END)
        self._wrote.seek(max(0, size - _TAIL_SIZE))
        lines = [line.strip() for line in self._wrote if line.strip()][-_TAIL:]
        return f" It wrote last: {' / '.join(lines)}" if lines else ""


async def _tools(client: Client) -> tuple[ToolSpec, ...]:
    found: list[ToolSpec] = []
    cursor = None
    while True:
        page = await client.list_tools(cursor=cursor)
        found += [ToolSpec(tool.name, tool.description or "", tool.input_schema) for tool in page.tools]
        cursor = page.next_cursor
        if cursor is None:
            return tuple(found)


def _text(result: CallToolResult) -> str:
    """What is text of the answer; other content is named and not shown."""
    parts = [part.text if isinstance(part, TextContent) else f"[{part.type}]" for part in result.content]
    return "\n".join(parts)


def _reason(error: BaseException) -> str:
    """The innermost of grouped errors, which is the one that says something."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
