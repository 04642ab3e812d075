"""The HTTP side: OpenAI's routes over sessions, with every refusal in a form that OpenAI's clients read.

It answers on this machine only, unless it has a key; it never closes a session because a connection broke.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from agentrl.endpoint.problems import Problem
from agentrl.endpoint.replies import body, events, model_list
from agentrl.endpoint.requests import ChatRequest, parse_request
from agentrl.endpoint.session import Exchange, Session
from agentrl.errors import ConfigError, MissingDependencyError

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse
    from starlette.routing import Route
except ImportError as error:
    raise MissingDependencyError(
        "an endpoint needs starlette and uvicorn; install them with `pip install 'agentrl-framework[view]'`."
    ) from error

HERE = ("127.0.0.1", "localhost", "::1")
"Names of this machine, and of no other."
MOST_BYTES = 32 * 2**20
"Of a request."
SESSION_HEADER = "x-session-id"
GRACE = 1.0
"Seconds that answers under way have when the server is closed."
ANYONE = "session"
"What stands before `:NAME` in a bearer token where there is no key."


class Reception(Protocol):
    """Who knows the sessions."""

    @property
    def models(self) -> Sequence[str]:
        """What the policy is called; a request that names a model names one of them. Empty: any name will do."""
        ...

    def session(self, name: str, request: ChatRequest) -> Session:
        """The session called `name`; where it is empty, the one that the request goes on with. Raises `Problem`."""
        ...


@dataclass(frozen=True, slots=True)
class Gate:
    """Who is let in."""

    key: str = ""
    "Bearer token; empty lets in whoever reaches the port."
    hosts: Sequence[str] = HERE
    "Names that a request may give this machine; empty takes any. A page from elsewhere would name its own."

    def admit(self, request: Request) -> str:
        """The session that the bearer token names (`KEY:NAME`), or nothing. Raises `Problem`."""
        host = request.headers.get("host", "")
        bare = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0].lower()
        if self.hosts and bare not in self.hosts:
            raise Problem(400, f"this server answers to {', '.join(self.hosts)}, and the request names {host!r}.")
        token = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        start = f"{self.key or ANYONE}:".encode()
        own, name = token.encode()[: len(start)], token.encode()[len(start) :]
        named = hmac.compare_digest(own, start)
        if self.key and not named and not hmac.compare_digest(token.encode(), self.key.encode()):
            raise Problem(401, "the API key is missing or wrong.", code="invalid_api_key")
        return name.decode() if named else ""


Answer = Callable[[Request, str], Awaitable[Response]]


def make_app(reception: Reception, gate: Gate, more: Sequence[tuple[str, str, Answer]] = ()) -> Starlette:
    """`more` are routes (method, path, answer) beside OpenAI's; an answer is told the session of the bearer token."""

    async def chat(request: Request, named: str) -> Response:
        asked = parse_request(await read_body(request))
        name = request.path_params.get("session", "") or request.headers.get(SESSION_HEADER, "") or asked.user or named
        if reception.models and asked.model and asked.model not in reception.models:
            known = ", ".join(reception.models)
            raise Problem(
                404, f"no model is called {asked.model!r}; here is {known}.", code="model_not_found", param="model"
            )
        session = reception.session(name, asked)
        exchange = await _unless_gone(request, session.ask(asked))
        return Response(status_code=499) if exchange is None else _told(asked, session, exchange, reception.models)

    async def models(request: Request, named: str) -> Response:
        return Response(model_list(reception.models), media_type="application/json")

    own = [
        (method, f"{start}/{path}", answer)
        for start in ("/v1", "/v1/s/{session}")
        for method, path, answer in (("POST", "chat/completions", chat), ("GET", "models", models))
    ]
    routes = [Route(path, _guarded(gate, answer), methods=[method]) for method, path, answer in (*own, *more)]
    app = Starlette(routes=routes)
    app.add_exception_handler(404, _nothing_here)
    app.add_exception_handler(405, lambda request, error: refusal(Problem(405, "not this method.")))
    return app


async def read_body(request: Request) -> bytes:
    """Raises `Problem` (413) as soon as it is too long."""
    told = request.headers.get("content-length", "0")
    found = bytearray()
    too_long = told.isdecimal() and int(told) > MOST_BYTES
    if not too_long:
        async for chunk in request.stream():
            found += chunk
            if too_long := len(found) > MOST_BYTES:
                break
    if too_long:
        raise Problem(413, f"the body has more than {MOST_BYTES:,} bytes.")
    return bytes(found)


def refusal(problem: Problem) -> Response:
    headers = {"retry-after": "1"} if problem.status in (429, 503) else {}
    if problem.status == 409:
        # OpenAI's clients would ask twice more, seconds apart, for a session that is over.
        headers["x-should-retry"] = "false"
    return Response(problem.body(), problem.status, headers, "application/json")


def bind(host: str, port: int, key: str) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises `ConfigError`."""
    if host not in HERE and not key:
        raise ConfigError(
            f"--host {host} would let other machines use the policy: give a --key as well, or one of {', '.join(HERE)}."
        )
    try:
        found = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        # asyncio does it only for sockets that name their protocol; without it an answer waits 40 ms for the kernel.
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return found
    except OSError as error:
        raise ConfigError(f"port {port} of {host} cannot be had: {error.strerror}. Port 0 takes a free one.") from error


class _Server(uvicorn.Server):
    """Opens and closes in milliseconds, where uvicorn looks ten times a second whether it should: agents that play one
    after another have it opened for each."""

    def __init__(self, config: uvicorn.Config, grace: float) -> None:
        super().__init__(config)
        self._grace = grace
        self._over = asyncio.Event()

    def end(self) -> None:
        self.should_exit = True
        self._over.set()

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        """Signals are the program's."""
        yield

    async def main_loop(self) -> None:
        # Ten of its ticks are a second: it writes the date that answers bear.
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), 1.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Idle connections are closed at once; answers under way have a moment to get out."""
        state = self.server_state
        for server in self.servers:
            server.close()
        for connection in list(state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace):
                # uvicorn has no event for the last one.
                while state.connections or state.tasks:  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
        for task in state.tasks:
            task.cancel()
        for connection in state.connections:
            connection.transport.abort()


@asynccontextmanager
async def listening(app: Starlette, port: socket.socket, grace: float = GRACE) -> AsyncIterator[str]:
    """Serve `app` meanwhile; gives the address, without a path. Closes `port`, after `grace` seconds at the latest."""
    settings = uvicorn.Config(
        app, log_config=None, log_level="warning", access_log=False, server_header=False, lifespan="off"
    )
    server = _Server(settings, grace)
    work = asyncio.create_task(server.serve([port]))
    host, number = port.getsockname()[:2]
    try:
        yield f"http://[{host}]:{number}" if ":" in host else f"http://{host}:{number}"
    finally:
        server.end()
        await asyncio.wait({work})
        port.close()


def _guarded(gate: Gate, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        try:
            return await answer(request, gate.admit(request))
        except Problem as problem:
            return refusal(problem)

    return handle


def _nothing_here(request: Request, error: Exception) -> Response:
    words = f"there is nothing at {request.url.path}; the API is /v1/chat/completions."
    if request.url.path.rstrip("/").endswith("/responses"):
        words += (
            " The Responses API is not served: tell the client to use chat completions (in openai-agents "
            'OpenAIChatCompletionsModel, or set_default_openai_api("chat_completions")).'
        )
    return refusal(Problem(404, words))


def _told(asked: ChatRequest, session: Session, exchange: Exchange, models: Sequence[str]) -> Response:
    name, model = f"chatcmpl-{session.name}", asked.model or next(iter(models), "")
    headers = {SESSION_HEADER: session.name}
    if not asked.stream:
        return Response(body(name, model, exchange.choices, session.name), 200, headers, "application/json")

    async def stream() -> AsyncIterator[bytes]:
        exchange.unheard = True
        for event in events(name, model, exchange.choices, asked.stream_usage):
            yield event
        exchange.unheard = False

    return StreamingResponse(stream(), 200, headers, "text/event-stream")


async def _unless_gone(request: Request, work: Awaitable[Exchange]) -> Exchange | None:
    """What `work` gives; None, with `work` cancelled, where the client hung up first."""
    asking, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({asking, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            return asking.result()
        return None
    finally:
        for one in (asking, leaving):
            one.cancel()
        await asyncio.wait({asking, leaving})


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
