"""One session with an OpenEnv server, through openenv-core's own client.

What the server refuses of an action is told apart from a server that failed; after a failure nothing is asked again,
since a late answer would be taken for the next one's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import httpx
from openenv.core import GenericEnvClient
from websockets.exceptions import ConnectionClosed

from agentrl import AgentRLError, EnvironmentFault

CLOSE_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"Seconds between two tries for a free session."


class Refused(AgentRLError):
    """The server answered with an error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Client(GenericEnvClient):
    """Says what was wrong with an action, which the client of the package leaves out."""

    async def _send_and_receive(self, message: dict[str, Any]) -> dict[str, Any]:
        # A server that is full says so and hangs up: what it said is read although nothing can be sent.
        with contextlib.suppress(ConnectionClosed):
            await self._send(message)
        answer: dict[str, Any] = await self._receive()
        if answer.get("type") == "error":
            data = answer.get("data", {})
            raise Refused(str(data.get("code", "")), _reason(data))
        return answer


class Session:
    """Raises `EnvironmentFault` wherever the server is not there, not in time, or failed."""

    def __init__(self, url: str, deadline: float) -> None:
        self.url = url
        self._deadline = deadline
        self._client = _Client(url, connect_timeout_s=deadline, message_timeout_s=deadline, mode="simulation")
        self._lost = ""

    async def schema(self) -> Mapping[str, Any]:
        """JSON schema of the server's actions."""
        try:
            address = _http(self.url)
            # Reading the certificates takes longer than the answer; without TLS there is nothing to verify.
            secure, proxied = address.startswith("https"), not _is_here(address)
            async with httpx.AsyncClient(timeout=self._deadline, trust_env=proxied, verify=secure) as http:
                answer = await http.get(f"{address}/schema")
                found: Mapping[str, Any] = answer.raise_for_status().json()["action"]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise EnvironmentFault(
                f"{self.url} is no OpenEnv server: GET /schema gave {_said(error)}. Start it, or correct `url`."
            ) from error
        return found

    async def reset(self, arguments: Mapping[str, Any], patience: float) -> tuple[Mapping[str, Any], float, bool]:
        """Observation, reward, done. A server whose sessions are all taken is asked again for `patience` seconds."""
        until, pause = asyncio.get_running_loop().time() + patience, FIRST_PAUSE
        while True:
            try:
                return await self._ask("reset", arguments)
            except Refused as refused:
                if refused.code != "CAPACITY_REACHED":
                    raise self._fault(f"reset({dict(arguments)}) failed: {refused}") from refused
                if asyncio.get_running_loop().time() + pause > until:
                    raise self._fault(
                        f"no session was free within {patience:g} s ({refused}). Let the server have more of them "
                        "(`max_concurrent_envs`), or play fewer episodes at once"
                    ) from refused
            await self._client.disconnect()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def step(self, action: Mapping[str, Any]) -> tuple[Mapping[str, Any], float, bool]:
        """Observation, reward, done. Raises `Refused` where the server did not take the action and goes on."""
        return await self._ask("step", action)

    def lose(self, refused: Refused) -> EnvironmentFault:
        """What the server said is its own fault: nothing more is asked."""
        return self._fault(f"it raised: {refused}")

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._client.disconnect()

    async def _ask(self, verb: str, what: Mapping[str, Any]) -> tuple[Mapping[str, Any], float, bool]:
        if self._lost:
            raise EnvironmentFault(f"the OpenEnv server {self.url} was lost before: {self._lost}.")
        self._lost = f"a {verb} was not answered"
        try:
            result = await (self._client.reset(**what) if verb == "reset" else self._client.step(dict(what)))
        except Refused:
            self._lost = ""
            raise
        except TimeoutError as error:
            raise self._fault(f"it did not answer a {verb} within {self._deadline:g} s") from error
        except (ConnectionError, ConnectionClosed, OSError) as error:
            raise self._fault(f"the connection broke at a {verb}: {_said(error)}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise self._fault(f"its answer to a {verb} cannot be read: {_said(error)}") from error
        self._lost = ""
        if not isinstance(result.observation, Mapping):
            raise self._fault(f"its observation after a {verb} is {result.observation!r}, not an object")
        return result.observation, float(result.reward or 0.0), bool(result.done)

    def _fault(self, why: str) -> EnvironmentFault:
        self._lost = why
        return EnvironmentFault(f"the OpenEnv server {self.url} is lost: {why}.")


def _http(url: str) -> str:
    """The address of the server's pages: `ws` and `http` are one server."""
    scheme, mark, rest = url.rstrip("/").partition("://")
    if not mark:
        return f"http://{scheme}"
    return {"ws": "http", "wss": "https"}.get(scheme, scheme) + mark + rest


def _is_here(url: str) -> bool:
    """No proxy stands between; openenv-core's client sees it so too."""
    return any(name in url for name in ("localhost", "127.0.0.1", "[::1]"))


def _reason(data: Mapping[str, Any]) -> str:
    """The message, with what a validation found, field by field."""
    wrong = [
        f"{'.'.join(str(part) for part in found.get('loc', ()))}: {found.get('msg', '')}"
        for found in data.get("errors") or ()
        if isinstance(found, Mapping)
    ]
    return "; ".join([str(data.get("message", "no message")), *wrong])


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
