"""A server that speaks Search-R1's form, as the retriever.

A server that fails or answers nonsense is an `InfrastructureFault`: never an observation, never a zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec

from agentrl.engines.http import EXCERPT, HttpClient
from agentrl.errors import InfrastructureFault
from search_qa.documents import Document, document_of

_PASSING = (429, 500, 502, 503, 504)
"Statuses of a server that may answer the same request a moment later."


class _Passage(msgspec.Struct):
    contents: str | None = None
    text: str | None = None
    title: str | None = None
    id: str | int | None = None


class _Scored(msgspec.Struct):
    document: _Passage


class _Results(msgspec.Struct):
    result: list[list[dict[str, Any]]]


class Remote:
    """`POST /retrieve {queries, topk, return_scores}`, as Search-R1 (arXiv:2503.09516) serves its corpus."""

    def __init__(self, url: str, timeout: float) -> None:
        """`url` is the server's, with or without `/retrieve`. Raises `ConfigError` where it is none."""
        bare = url.rstrip("/").removesuffix("/retrieve")
        self._http = HttpClient(bare, timeout=timeout, retry_statuses=_PASSING)

    async def search(self, query: str, count: int, longest: int) -> Sequence[Document]:
        body = {"queries": [query], "topk": count, "return_scores": True}
        answer = await self._http.post_json("retrieve", body, repeatable=True)
        try:
            (found,) = msgspec.convert(answer, _Results).result
            passages = [_passage(entry) for entry in found]
        except (msgspec.ValidationError, ValueError) as error:
            shown = msgspec.json.encode(answer).decode()[:EXCERPT]
            raise InfrastructureFault(
                f"the retriever at {self._http.base_url} answered something else than documents ({error}): {shown}. "
                'Expected: {"result": [[{"document": {"id": ..., "contents": ...}, "score": ...}]]}.'
            ) from error
        documents = []
        for passage in passages[:count]:
            text = passage.contents if passage.contents is not None else passage.text or ""
            # Its own name for one without an id: the same text has it in every answer.
            name = str(passage.id) if passage.id is not None else f"#{sha256(text.encode()).hexdigest()[:8]}"
            document = document_of(name, text, passage.title)
            documents.append(Document(document.id, document.title, document.cut(longest)))
        return documents

    async def close(self) -> None:
        await self._http.close()


def _passage(entry: dict[str, Any]) -> _Passage:
    """With a score around it, or, from servers that ignore `return_scores`, without."""
    passage = msgspec.convert(entry, _Scored).document if "document" in entry else msgspec.convert(entry, _Passage)
    if passage.contents is None and passage.text is None:
        raise ValueError("a document without contents")
    return passage
