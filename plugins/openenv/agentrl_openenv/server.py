"""The web server around a hosted environment: openenv-core's routes, on this machine, closed to pages of others.

Idle sessions are closed by openenv-core's own reaper; whatever is still open when the server ends is closed with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI
from openenv.core.env_server import ConcurrencyConfig, HTTPEnvServer
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose, WebSocketDisconnect

from agentrl.errors import ConfigError
from agentrl_openenv.hosting import Hosted, session_factory
from agentrl_openenv.served import Decision, Shown

HERE = ("127.0.0.1", "localhost", "::1")
"Names of this machine, and of no other."


SESSIONS, IDLE = 16, 600.0


@dataclass(frozen=True, slots=True)
class Limits:
    sessions: int = SESSIONS
    "At once; one more is refused."
    idle: float = IDLE
    "Seconds without a call after which a session is closed; the reaper looks every 5 s at most."


class Guard:
    """Refuses what a web page of somebody else sends: an origin, or a host name, that is not the server's."""

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and not self._ours(Headers(scope=scope)):
            if scope["type"] == "websocket":
                await WebSocketClose(1008)(scope, receive, send)
            else:
                await PlainTextResponse("this server answers to no page of another host.", 403)(scope, receive, send)
            return
        # A client that is gone already is closed once more by openenv-core, which is no error of anybody.
        with contextlib.suppress(WebSocketDisconnect):
            await self._app(scope, receive, send)

    def _ours(self, headers: Headers) -> bool:
        host, origin = headers.get("host", ""), headers.get("origin")
        named = urlsplit(f"//{host}").hostname
        same = origin is None or urlsplit(origin).netloc == host
        return same and (not self._hosts or named in self._hosts)


def make_app(hosted: Hosted, limits: Limits, *, hosts: tuple[str, ...] = HERE) -> FastAPI:
    """hosts: the names that it answers to; any if there are none."""
    server = HTTPEnvServer(
        session_factory(hosted),
        Decision,
        Shown,
        concurrency_config=ConcurrencyConfig(max_concurrent_envs=limits.sessions, session_timeout=limits.idle),
    )
    app = FastAPI(title=f"agentrl: {hosted.name}")
    server.register_routes(app)
    app.add_middleware(Guard, hosts=hosts)
    app.state.openenv = server
    return app


def listen(host: str, port: int) -> socket.socket:
    """Port 0 takes a free one. Raises `ConfigError`."""
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        # asyncio does it only for sockets that name their protocol; without it an answer waits 40 ms for the kernel.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        raise ConfigError(
            f"port {port} of {host} cannot be had: {error.strerror}. Leave --port out for a free one."
        ) from error


@contextlib.asynccontextmanager
async def running(hosted: Hosted, limits: Limits, listening: socket.socket) -> AsyncIterator[asyncio.Task[None]]:
    """The server as a task, which ends by itself at a Ctrl-C; afterwards no world of it is left."""
    host, port = listening.getsockname()[:2]
    here = host in HERE
    app = make_app(hosted, limits, hosts=HERE if here else ())
    settings = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
    server = uvicorn.Server(settings)
    task = asyncio.create_task(server.serve([listening]), name=f"serve-env {host}:{port}")
    try:
        yield task
    finally:
        server.should_exit = True
        try:
            await task
        finally:
            await hosted.close()
