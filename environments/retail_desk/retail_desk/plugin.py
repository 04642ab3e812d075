"""What this package registers: the environment `retail_desk` and the suite `retail-desk`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import agentrl
from retail_desk.env import RetailDesk
from retail_desk.generate import Level


@agentrl.hookimpl
def agentrl_environments() -> Mapping[str, type[RetailDesk]]:
    return {"retail_desk": RetailDesk}


@agentrl.hookimpl
def agentrl_suites() -> Mapping[str, Callable[..., agentrl.Suite]]:
    return {"retail-desk": suite}


def suite(*, level: Level = "medium") -> agentrl.Suite:
    """128 held-out customers. level: easy, medium or hard."""
    return agentrl.Suite(
        name="retail-desk",
        version="2",
        environment=RetailDesk,
        options={"level": level},
        count=128,
        limits=agentrl.SuiteLimits(max_tokens=256),
    )
