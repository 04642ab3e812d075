"""JSON over HTTP for the engines; the only module that imports httpx.

Every call has a deadline in seconds for all its attempts together, and every failure becomes an `HttpFault` that
names the URL, the status and the beginning of the body. Cancelling a call closes its connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import stamina

from agentrl.errors import ConfigError, InfrastructureFault
from agentrl.types import JSON

# Retries are told by the fault that is left in the end; stamina would write a line for each.
logging.getLogger("stamina").addHandler(logging.NullHandler())

EXCERPT = 500
CONNECT_SECONDS = 10.0
LONGEST_WAIT = 30.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# The request cannot have been acted on: the connection was never made.
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
LOST = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError, httpx.CloseError)


class HttpFault(InfrastructureFault):
    """A call that failed: `status` is None where no answer came, `body` the beginning of what did."""

    def __init__(self, message: str, *, url: str, status: int | None = None, body: str = "") -> None:
        super().__init__(message)
        self.url = url
        self.status = status
        self.body = body


class HttpClient:
    """An asynchronous JSON client of one server.

    `timeout` is the deadline of calls that name none. A call is tried again, up to `attempts` times within its
    deadline, where the connection could not be made, where the answer's status is in `retry_statuses` (waiting as
    long as `Retry-After` says), and, for a GET or a POST called `repeatable`, where the connection broke.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        *,
        attempts: int = 4,
        retry_statuses: Collection[int] = (),
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"base_url is {base_url!r}; it starts with http:// or https:// and names a host.")
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self._attempts = attempts
        self._retry_statuses = frozenset(retry_statuses)
        self._client = httpx.AsyncClient(
            headers={"content-type": "application/json", **(headers or {})},
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            # The rollout engine bounds concurrency; a pool limit here would queue episodes unseen.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=256),
            # A proxy from the environment cannot reach a server on this machine.
            trust_env=parts.hostname not in LOOPBACK,
        )

    async def get_json(self, path: str, deadline: float | None = None) -> JSON:
        """The decoded body; None where it is empty. Raises `HttpFault`."""
        return await self._call("GET", path, None, deadline, repeatable=True)

    async def post_json(
        self, path: str, body: JSON = None, deadline: float | None = None, *, repeatable: bool = False
    ) -> JSON:
        """The decoded answer; None where it is empty. Raises `HttpFault`."""
        content = b"" if body is None else msgspec.json.encode(body)
        return await self._call("POST", path, content, deadline, repeatable=repeatable)

    async def close(self) -> None:
        await self._client.aclose()

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(
        self, method: str, path: str, content: bytes | None, deadline: float | None, *, repeatable: bool
    ) -> JSON:
        url = f"{self.base_url}/{path.lstrip('/')}"
        seconds = self.timeout if deadline is None else deadline

        def worth_repeating(error: Exception) -> bool | float:
            if isinstance(error, _Retriable):
                return error.wait if error.wait is not None else True
            return isinstance(error, NEVER_SENT) or (repeatable and isinstance(error, LOST))

        try:
            async with asyncio.timeout(seconds):
                async for attempt in stamina.retry_context(
                    on=worth_repeating, attempts=self._attempts, timeout=None, wait_initial=0.1, wait_jitter=0.1
                ):
                    with attempt:
                        return await self._once(method, url, content)
        except TimeoutError:
            raise HttpFault(
                f"{method} {url} did not answer within {seconds:g} s. Is the server overloaded or stuck? "
                "Look at its log, or allow a longer deadline.",
                url=url,
            ) from None
        except _Retriable as error:
            raise error.fault from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise HttpFault(f"{method} {url} failed: {_say(error)}. Is the server running?", url=url) from error
        raise AssertionError("stamina ended without a result or an error")

    async def _once(self, method: str, url: str, content: bytes | None) -> JSON:
        response = await self._client.request(method, url, content=content)
        if response.is_success:
            return _decode(method, url, response)
        body = response.text[:EXCERPT]
        fault = HttpFault(
            f"{method} {url} answered {response.status_code} {response.reason_phrase}: {body or '(empty body)'}",
            url=url,
            status=response.status_code,
            body=body,
        )
        if response.status_code in self._retry_statuses:
            raise _Retriable(fault, _retry_after(response))
        raise fault


class _Retriable(Exception):
    """A refusal that may pass; carries the fault to raise when attempts run out."""

    def __init__(self, fault: HttpFault, wait: float | None) -> None:
        super().__init__(str(fault))
        self.fault = fault
        self.wait = wait


def _decode(method: str, url: str, response: httpx.Response) -> Any:
    if not response.content:
        return None
    try:
        return msgspec.json.decode(response.content)
    except msgspec.DecodeError as error:
        body = response.text[:EXCERPT]
        raise HttpFault(
            f"{method} {url} answered {response.status_code} with a body that is not JSON ({error}): {body}",
            url=url,
            status=response.status_code,
            body=body,
        ) from error


def _retry_after(response: httpx.Response) -> float | None:
    try:
        # Never 0: stamina before 25.2 reads a false value as "do not retry".
        return min(max(float(response.headers["retry-after"]), 0.05), LONGEST_WAIT)
    except (KeyError, ValueError):
        return None


def _say(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
