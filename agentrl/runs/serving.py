"""Weights behind an engine of any kind, in this process or in a server of its own, closed with its owner."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from agentrl.plugins import Host
from agentrl.protocols import Engine
from agentrl.sections import Part


async def serve(
    host: Host, part: Part, given: Mapping[str, Any], load: Callable[[], Any], stack: AsyncExitStack
) -> Engine:
    """An engine as `part` says, started, and closed by `stack`. `load` makes the model of one that samples here."""
    supplied = dict(given)
    wanted = inspect.signature(host.factory("engines", part.name)).parameters
    if "model" in wanted and "model" not in part.options:
        supplied["model"] = load()
    engine: Engine = host.create("engines", part.name, part.options, given=supplied, where="[engine]")
    stack.push_async_callback(engine.close)
    await engine.start()
    return engine
