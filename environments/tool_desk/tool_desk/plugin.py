"""What this package registers: the environment `tool_desk` and the suite `tool-desk`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import agentrl
from tool_desk.env import ToolDesk
from tool_desk.request import Level


@agentrl.hookimpl
def agentrl_environments() -> Mapping[str, type[ToolDesk]]:
    return {"tool_desk": ToolDesk}


@agentrl.hookimpl
def agentrl_suites() -> Mapping[str, Callable[..., agentrl.Suite]]:
    return {"tool-desk": suite}


def suite(*, level: Level = "easy", shots: int = 4) -> agentrl.Suite:
    """128 held-out requests. level: easy, medium or hard. shots: solved requests shown first."""
    return agentrl.Suite(
        name="tool-desk",
        version="1",
        environment=ToolDesk,
        options={"level": level, "shots": shots},
        count=128,
        limits=agentrl.SuiteLimits(max_tokens=128),
    )
