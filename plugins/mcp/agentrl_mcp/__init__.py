"""Any MCP server's tools as an environment: a fresh server an episode, a reward by the user's function."""
