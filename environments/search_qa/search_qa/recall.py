"""How much of what a question needs a search for the question itself finds: the measure of a retriever.

Recall at k is the share of a question's sources among the first k documents, averaged over questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from agentrl.errors import InvalidDataError
from search_qa.documents import Question
from search_qa.env import SearchQA
from search_qa.retrievers import Local, Retriever
from search_qa.world import index_of

AT = (1, 3, 5, 10)
READ = 2_000
"Characters of a document that a reranker may read."


async def recall(asked: Iterable[tuple[Retriever, Question]], at: Sequence[int] = AT) -> Mapping[int, float]:
    """By k. Questions that name no source are left out. Raises `InvalidDataError` where none is left."""
    found: list[list[float]] = []
    for retriever, question in asked:
        if question.sources:
            shown = [document.id for document in await retriever.search(question.text, max(at), READ)]
            wanted = set(question.sources)
            found.append([len(wanted & set(shown[:k])) / len(wanted) for k in at])
    if not found:
        raise InvalidDataError("no question names its `sources`, so there is nothing to measure.")
    return {k: sum(column) / len(found) for k, column in zip(at, zip(*found, strict=True), strict=True)}


def generated(hops: int, count: int) -> Iterator[tuple[Local, Question]]:
    """Held-out questions about generated worlds, each with the index of its world."""
    for task in islice(SearchQA(hops=hops).tasks("test"), count):
        data = task.data
        yield Local(index_of(*data["world"])), Question(data["text"], tuple(data["answers"]), tuple(data["sources"]))
