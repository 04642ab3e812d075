"""What this package registers: the environment `mcp`."""

from __future__ import annotations

from collections.abc import Mapping

import agentrl


@agentrl.hookimpl
def agentrl_environments() -> Mapping[str, agentrl.Lazy]:
    return {
        "mcp": agentrl.Lazy(
            "agentrl_mcp.world:McpWorld",
            requires=("mcp",),
            extra="mcp",
            summary="the tools of any MCP server, stdio or HTTP (SDK 2.x, licence MIT; the server's own may differ)",
        )
    }
