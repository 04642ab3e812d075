"""The page's server: answers of `agentrl.view.shapes` as JSON, and the page's own files.

It answers on this machine only, to pages that it served itself; a name in an address is looked up in the ledger or in
the list of the page's files, never on the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from agentrl.errors import ConfigError, InvalidDataError, MissingDependencyError, StoreError, UnknownNameError
from agentrl.pictures import media_type
from agentrl.view.collection import Collection
from agentrl.view.shapes import Problem

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.datastructures import MutableHeaders
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as error:
    raise MissingDependencyError(
        "`agentrl view` needs starlette and uvicorn; install them with `pip install 'agentrl-framework[view]'`. "
        "`agentrl view RUN --export FILE.html` works without them."
    ) from error

HOSTS = ("127.0.0.1", "localhost", "::1")
"Names of this machine, and of no other."
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
Answer = Callable[[Collection, Request], Any]


def make_app(collection: Collection, page: Path) -> Starlette:
    """`page` is the folder of the page's files; what lies in it now is what is served."""
    files = {path.name: path for path in page.iterdir() if path.suffix in KINDS} if page.is_dir() else {}
    answers: dict[str, Answer] = {
        "/api/overview": lambda shown, _: shown.overview(),
        "/api/revision": lambda shown, _: shown.revision(),
        "/api/grid": lambda shown, _: shown.grid(),
        "/api/episodes": lambda shown, request: shown.episodes(dict(request.query_params)),
        "/api/episode/{name:path}": _episode,
    }
    routes = [Route(path, partial(_json, collection, answer)) for path, answer in answers.items()]
    routes += [
        Route("/api/image/{name}", partial(_image, collection)),
        Route("/", partial(_file, files, "index.html")),
        Route("/page/{name}", partial(_file, files, "")),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard)])


class Guard:
    """Refuses a request that names another host, and sends every answer with its safety headers.

    A name that an attacker's server resolves to this machine would otherwise make its page one of ours.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        host = Request(scope).headers.get("host", "")
        if _bare(host) in HOSTS:
            await self._app(scope, receive, guarded)
            return
        words = f"this server answers to {', '.join(HOSTS)}, and the request asks for the host {host!r}."
        await _problem(400, words)(scope, receive, guarded)


def listen(host: str, port: int) -> socket.socket:
    """A socket on a name of this machine; port 0 takes a free one. Raises `ConfigError`."""
    if host not in HOSTS:
        raise ConfigError(
            f"--host {host} would show the episodes to other machines; the viewer has no login. Allowed: "
            f"{', '.join(HOSTS)}. From elsewhere: ssh -L 8000:127.0.0.1:PORT this-machine."
        )
    family = socket.AF_INET6 if host == "::1" else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
        # asyncio does it only for sockets that name their protocol; without it an answer waits 40 ms for the kernel.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        raise ConfigError(
            f"port {port} of {host} cannot be had: {error.strerror}. Leave --port out for a free one."
        ) from error


def serve(app: Starlette, listening: socket.socket) -> None:
    """Until interrupted."""
    settings = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1
    )
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(uvicorn.Server(settings).serve([listening]))


def _episode(shown: Collection, request: Request) -> Any:
    return shown.episode(request.path_params["name"], request.query_params.get("run", "0"))


async def _json(collection: Collection, answer: Answer, request: Request) -> Response:
    try:
        body = await asyncio.to_thread(lambda: msgspec.json.encode(answer(collection, request)))
    except UnknownNameError as error:
        return _problem(404, str(error))
    except InvalidDataError as error:
        return _problem(400, str(error))
    except StoreError as error:
        return _problem(500, str(error))
    return Response(body, media_type="application/json")


async def _image(collection: Collection, request: Request) -> Response:
    try:
        data = await asyncio.to_thread(collection.image, request.path_params["name"])
    except StoreError as error:
        return _problem(404, str(error))
    return Response(data, media_type=media_type(data))


async def _file(files: dict[str, Path], name: str, request: Request) -> Response:
    path = files.get(name or request.path_params["name"])
    if path is None:
        return _problem(404, f"the page has no file {name or request.path_params['name']!r}.")
    return Response(await asyncio.to_thread(path.read_bytes), media_type=KINDS[path.suffix])


def _problem(status: int, words: str) -> Response:
    return Response(msgspec.json.encode(Problem(words)), status, media_type="application/json")


def _bare(host: str) -> str:
    """`[::1]:80` and `localhost:80` without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
