"""What this package registers: the environment `tool_desk`."""

from __future__ import annotations

from collections.abc import Mapping

import agentrl
from tool_desk.env import ToolDesk


@agentrl.hookimpl
def agentrl_environments() -> Mapping[str, type[ToolDesk]]:
    return {"tool_desk": ToolDesk}
