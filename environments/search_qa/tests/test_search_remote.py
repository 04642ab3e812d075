"""search_qa over a retriever of somebody else: its form, its faults, what it sends."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from search_qa.documents import Document
from search_qa.env import Corpus, SearchQA
from search_qa.remote import Remote
from search_qa.scoring import read_answer

from agentrl import Task, call, say
from agentrl.environment import adapt
from agentrl.errors import InfrastructureFault
from agentrl.testing import play
from agentrl.types import StepResult


def told(result: StepResult) -> str:
    return " ".join(message.content for message in result.observation.messages)


def jsonl(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@asynccontextmanager
async def serving(body: bytes | None, *statuses: int) -> AsyncIterator[tuple[str, list[tuple[str, Any]]]]:
    """A retriever that always answers `body`; None breaks the connection in the middle of the answer.

    The first answers have `statuses`, then 200; a status of 0 is no answer at all.
    """
    coming = iter(statuses)
    answering: list[asyncio.Task[Any] | None] = []
    asked: list[tuple[str, Any]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.append(asyncio.current_task())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        size = int(re.findall(r"content-length: (\d+)", head.lower())[0])
        asked.append((head.split("\r\n")[0], json.loads(await reader.readexactly(size))))
        status = next(coming, 200)
        if not status:
            # Until the client has had enough.
            await reader.read()
            writer.close()
            return
        whole = body if body is not None else b'{"result": [['
        length = len(whole) if body is not None else 5000
        head = f"HTTP/1.1 {status} So\r\nretry-after: 0\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        writer.write(head.encode() + whole)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
        await asyncio.gather(*filter(None, answering))


REMOTE = Task("t", "search_qa", data={"text": "Which lime?", "answers": ["green"], "sources": [], "trail": []})


async def test_a_remote_retriever_is_asked_in_search_r1s_form(tmp_path: Path) -> None:
    questions = str(jsonl(tmp_path / "q.jsonl", [{"question": "Which lime?", "answer": "green"}]))
    found = {"document": {"id": "7", "contents": '"Limes"\nLimes are green.'}, "score": 3.5}
    bare = {"id": 8, "title": "Pears", "text": "Pears."}
    async with serving(json.dumps({"result": [[found, bare]]}).encode()) as (url, asked):
        env = SearchQA(corpus=Corpus(questions, retriever_url=f"{url}/retrieve"), topk=2)
        lines = [call("search", query="limes"), call("open", document="[7]"), say("Green. [7]")]
        results = await play(env, REMOTE, lines)
    assert asked == [("POST /retrieve HTTP/1.1", {"queries": ["limes"], "topk": 2, "return_scores": True})]
    assert told(results[0]) == "[7] Limes: Limes are green.\n[8] Pears: Pears."
    assert told(results[1]) == "[7] Limes\nLimes are green."
    assert results[-1].scores["success"] == results[-1].scores["citation_precision"] == 1.0
    assert results[-1].scores["unsupported"] == 0.0


@pytest.mark.parametrize(
    ("body", "words_of_error"),
    [
        (None, "failed"),
        (b'{"detail": "no corpus"}', "answered something else than documents"),
        (b'{"result": []}', "answered something else than documents"),
        (b'{"result": [[{"document": {"id": "1"}}]]}', "a document without contents"),
        (b"<html>", "JSON"),
    ],
)
async def test_a_retriever_that_dies_or_raves_is_a_fault_and_never_a_zero(
    body: bytes | None, words_of_error: str, tmp_path: Path
) -> None:
    questions = str(jsonl(tmp_path / "q.jsonl", [{"question": "Which lime?", "answer": "green"}]))
    async with serving(body) as (url, _):
        env = SearchQA(corpus=Corpus(questions, retriever_url=url))
        world = adapt(env)
        await world.reset(REMOTE)
        with pytest.raises(InfrastructureFault, match=words_of_error):
            await world.step(call("search", query="limes"))
        await world.close()


async def test_a_server_that_is_busy_is_asked_again_and_one_that_hangs_is_a_fault() -> None:
    body = json.dumps({"result": [[{"document": {"contents": "Limes\nsour"}}]]}).encode()
    async with serving(body, 500, 503) as (url, asked):
        remote = Remote(url, 20.0)
        (one,), (again,) = [await remote.search(query, 3, 100) for query in ("limes", "sour")]
        await remote.close()
    assert len(asked) == 4 and one == again and re.fullmatch(r"#[0-9a-f]{8}", one.id)
    async with serving(body, 0) as (url, _):
        remote = Remote(url, 0.2)
        with pytest.raises(InfrastructureFault, match=r"did not answer within 0\.2 s"):
            await remote.search("limes", 3, 100)
        await remote.close()


async def test_of_passages_with_one_id_the_last_one_shown_is_opened() -> None:
    env = SearchQA()
    passages = iter(
        [[Document("7", "A", "first")], [Document("7", "A", "second")], [Document("Rome, Italy", "R", "x")]]
    )

    class Passages:
        async def search(self, query: str, count: int, longest: int) -> list[Document]:
            return next(passages)

        async def close(self) -> None:
            return None

    env._retriever = Passages()
    await env.search("a")
    await env.search("a")
    assert env.open("7").endswith("second")
    await env.search("a")
    env.answered("x [Rome, Italy] [7, 8]")
    assert env.open("[Rome, Italy]").endswith("x") and env.scores()["citation_precision"] == 0.0
    assert read_answer(env.answer, env.found).cited == ("Rome, Italy", "7", "8")


async def test_a_long_document_of_a_server_is_cut() -> None:
    body = json.dumps({"result": [[{"document": {"id": "1", "contents": "x" * 9000}, "score": 1}]]}).encode()
    async with serving(body) as (url, _):
        remote = Remote(url, 5.0)
        (document,) = await remote.search("x", 3, 100)
        await remote.close()
    assert document.text == f"{'x' * 100}\n[cut: 9,000 characters, the first 100 are shown]"
