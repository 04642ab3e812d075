"""A server of sessions in this process, and its client: for tests of what is served."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from agentrl.endpoint.desk import Desk, DeskSettings
from agentrl.endpoint.folder import ServedFolder
from agentrl.endpoint.routes import routes_of
from agentrl.endpoint.server import Gate, bind, listening, make_app
from agentrl.evaluation.result import Conditions, Manifest
from agentrl.protocols import EngineHealth
from agentrl.rollout.decisions import Player

MANIFEST = Manifest(
    "served", "served", "h", "endpoint", {}, 0, {}, "bytes", {"kind": "bytes"}, Conditions(), {"agentrl-framework": "0"}
)
SETTINGS = DeskSettings(models=("bytes",), idle=20.0, max_tokens=16)


class Client:
    """Speaks to one server."""

    def __init__(self, url: str, http: httpx.AsyncClient, desk: Desk) -> None:
        self.url, self.http, self.desk = url, http, desk

    async def ask(self, where: str, *said: str | dict[str, Any], headers: Any = None, **more: Any) -> Any:
        messages = [{"role": "user", "content": one} if isinstance(one, str) else one for one in said]
        body = {"messages": messages, **more}
        answer = await self.http.post(f"{self.url}{where}/chat/completions", json=body, headers=headers)
        return answer.json() if answer.status_code == 200 else answer

    async def finish(self, name: str, **said: Any) -> Any:
        answer = await self.http.post(f"{self.url}/v1/sessions/{name}/finish", json=said)
        return answer.json() if answer.status_code == 200 else answer


@asynccontextmanager
async def served(
    folder: Path,
    player: Player,
    alive: Callable[[], Awaitable[EngineHealth]],
    settings: DeskSettings = SETTINGS,
    key: str = "",
) -> AsyncIterator[Client]:
    with ServedFolder(folder, MANIFEST) as kept:
        desk = Desk(player, kept, settings)
        app = make_app(desk, Gate(key), routes_of(desk, alive))
        async with (
            listening(app, bind("127.0.0.1", 0, "")) as url,
            httpx.AsyncClient(timeout=30.0, verify=False) as http,
        ):
            try:
                yield Client(url, http, desk)
            finally:
                await desk.close()
                kept.result().save(folder)
