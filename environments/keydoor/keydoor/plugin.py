"""What this package registers: the environment `keydoor` and the suite of its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import agentrl
from keydoor.env import KeyDoor


@agentrl.hookimpl
def agentrl_environments() -> Mapping[str, type[KeyDoor]]:
    return {"keydoor": KeyDoor}


@agentrl.hookimpl
def agentrl_suites() -> Mapping[str, Callable[..., agentrl.Suite]]:
    return {"keydoor": suite}


def suite(*, size: int = 4, horizon: int = 16, walls: bool = False, hints: bool = True) -> agentrl.Suite:
    """128 held-out layouts. size, horizon, walls, hints: as the environment's."""
    return agentrl.Suite(
        name="keydoor",
        version="1",
        environment=KeyDoor,
        options={"size": size, "horizon": horizon, "walls": walls, "hints": hints},
        count=128,
        limits=agentrl.SuiteLimits(max_tokens=64),
    )
