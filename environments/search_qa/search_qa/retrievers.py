"""Who answers a search: an index here; a server of somebody else's stands in `remote.py`.

Registration imports this module, so it imports no HTTP client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from search_qa.documents import Document
from search_qa.index import Index

SMALL = 5_000
"Documents; a search among fewer takes less than a millisecond and stays on the event loop."


class Retriever(Protocol):
    async def search(self, query: str, count: int, longest: int) -> Sequence[Document]:
        """At most `count` documents, the best first, their texts cut at `longest` characters."""
        ...

    async def close(self) -> None: ...


class Local:
    def __init__(self, index: Index) -> None:
        self._index = index

    async def search(self, query: str, count: int, longest: int) -> Sequence[Document]:
        if len(self._index) <= SMALL:
            return self._index.search(query, count, longest)
        return await asyncio.to_thread(self._index.search, query, count, longest)

    async def close(self) -> None:
        return None
