"""The HTTP client against a real socket: what is tried again, what is not, and what a failure says."""

from __future__ import annotations

import asyncio
import time

import pytest
from json_server import Answer, Call, serve

from agentrl.engines.http import HttpClient, HttpFault
from agentrl.errors import ConfigError


async def echo(call: Call) -> Answer:
    return Answer(body={"path": call.path, "body": call.body})


async def test_json_goes_out_and_comes_back() -> None:
    async with serve(echo) as server, HttpClient(server.url + "/v1/", {"x-run": "7"}) as client:
        assert await client.post_json("/ask", {"ids": [1, 2]}) == {"path": "/v1/ask", "body": {"ids": [1, 2]}}
        assert await client.get_json("models") == {"path": "/v1/models", "body": None}
        assert server.calls[0].headers["x-run"] == "7"
        assert server.calls[0].headers["content-type"] == "application/json"


async def test_an_empty_answer_is_none() -> None:
    async def silent(call: Call) -> Answer:
        return Answer()

    async with serve(silent) as server, HttpClient(server.url) as client:
        assert await client.get_json("/health") is None


async def test_a_refusal_names_url_status_and_the_beginning_of_the_body() -> None:
    async def refuse(call: Call) -> Answer:
        return Answer(400, {"error": "prompt is too long" + "." * 2000})

    async with serve(refuse) as server, HttpClient(server.url) as client:
        with pytest.raises(HttpFault) as caught:
            await client.post_json("/ask", {})
        assert caught.value.status == 400
        assert f"{server.url}/ask answered 400" in str(caught.value)
        assert "prompt is too long" in str(caught.value)
        assert len(str(caught.value)) < 700
        assert len(server.calls) == 1


async def test_statuses_that_may_pass_are_tried_again_after_the_wait_they_ask_for() -> None:
    async def busy_twice(call: Call) -> Answer:
        if len(server.calls) < 3:
            return Answer(429, {"error": "slow down"}, {"retry-after": "0.2"})
        return Answer(body="ready")

    async with serve(busy_twice) as server, HttpClient(server.url, retry_statuses=(429,)) as client:
        started = time.monotonic()
        assert await client.post_json("/ask", {}) == "ready"
        assert len(server.calls) == 3
        assert time.monotonic() - started >= 0.15


async def test_attempts_run_out_with_the_last_refusal() -> None:
    async def broken(call: Call) -> Answer:
        return Answer(503, b"restarting", {"retry-after": "0"})

    async with serve(broken) as server, HttpClient(server.url, attempts=2, retry_statuses=(503,)) as client:
        with pytest.raises(HttpFault, match=r"503 .*restarting"):
            await client.get_json("/ask")
        assert len(server.calls) == 2


async def test_a_broken_connection_is_repeated_only_where_that_is_harmless() -> None:
    async def hang_up_once(call: Call) -> Answer | None:
        return None if len(server.calls) == 1 else Answer(body=len(server.calls))

    async with serve(hang_up_once) as server, HttpClient(server.url) as client:
        with pytest.raises(HttpFault, match="RemoteProtocolError"):
            await client.post_json("/once", {})
    async with serve(hang_up_once) as server, HttpClient(server.url) as client:
        assert await client.post_json("/again", {}, repeatable=True) == 2
    async with serve(hang_up_once) as server, HttpClient(server.url) as client:
        assert await client.get_json("/again") == 2


async def test_a_server_that_is_not_there_is_named() -> None:
    async with serve(echo) as server:
        pass
    port = int(server.url.rsplit(":", 1)[1])
    async with HttpClient(server.url, attempts=2) as client:
        with pytest.raises(HttpFault, match=rf"127\.0\.0\.1:{port}/x failed: ConnectError.*running"):
            await client.get_json("/x")


async def test_a_deadline_covers_all_attempts() -> None:
    async def slow(call: Call) -> Answer:
        await asyncio.sleep(30)
        return Answer()

    async with serve(slow) as server, HttpClient(server.url, timeout=60) as client:
        started = time.monotonic()
        with pytest.raises(HttpFault, match=r"did not answer within 0\.1 s"):
            await client.get_json("/slow", 0.1)
        assert time.monotonic() - started < 25
        await asyncio.wait_for(server.hung_up.wait(), 25)


async def test_cancelling_a_call_closes_its_connection() -> None:
    async def slow(call: Call) -> Answer:
        arrived.set()
        await asyncio.sleep(30)
        return Answer()

    arrived = asyncio.Event()
    async with serve(slow) as server, HttpClient(server.url) as client:
        call = asyncio.create_task(client.post_json("/slow", {}))
        await arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(server.hung_up.wait(), 25)


async def test_an_answer_that_is_not_json_is_a_fault_with_an_excerpt() -> None:
    async def page(call: Call) -> Answer:
        return Answer(body=b"<html>proxy login</html>")

    async with serve(page) as server, HttpClient(server.url) as client:
        with pytest.raises(HttpFault, match=r"not JSON.*proxy login"):
            await client.get_json("/")


def test_a_base_url_without_a_host_is_a_config_error() -> None:
    for url in ("localhost:8000", "ftp://host", "http://"):
        with pytest.raises(ConfigError, match="base_url"):
            HttpClient(url)
