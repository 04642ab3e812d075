"""A small MCP server that counts, for the benchmark of environments, and the reward of its tasks."""

from __future__ import annotations

from typing import Any


def reward(played: Any) -> float:
    """For three ticks and no more."""
    return float(len(played.calls) == 3)


if __name__ == "__main__":
    from mcp.server.mcpserver import MCPServer

    server = MCPServer("clock")
    ticks = 0

    @server.tool()
    def tick(by: int) -> int:
        """Go on."""
        global ticks
        ticks += by
        return ticks

    server.run()
