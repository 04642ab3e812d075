"""A small MCP server for the tests: keeps numbers in the folder that it is started in."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

from mcp.server.mcpserver import MCPServer

server = MCPServer("ledger")
folder = Path(sys.argv[1])


@server.tool()
def write(name: str, number: int) -> str:
    """Keep a number under a name."""
    if not name.isalpha():
        raise ValueError(f"{name!r} is no name")
    (folder / name).write_text(str(number))
    return f"{name} is {number}"


@server.tool()
def read(name: str) -> int:
    """The number under a name."""
    return int((folder / name).read_text())


@server.tool()
def flood(characters: int) -> str:
    """Say much."""
    return "x" * characters


@server.tool()
def die() -> str:
    """End the server."""
    os._exit(3)


@server.tool()
def hang() -> str:
    """Never answer."""
    time.sleep(600)
    return ""


if __name__ == "__main__":
    if len(sys.argv) > 2:
        import uvicorn

        # A socket that listens already: who asks before the server is up waits for it.
        listening = socket.socket(fileno=int(sys.argv[2]))
        uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="warning")).run([listening])
    else:
        server.run()
