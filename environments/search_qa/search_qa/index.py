"""A BM25 index over documents: in memory, or in a folder that is mapped and not loaded.

The same documents and the same query give the same ranking everywhere: ties are broken by place in the corpus.
Scores are Lucene's form of BM25, by bm25s with its defaults (k1 1.5, b 0.75).
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from agentrl.errors import ConfigError, InvalidDataError
from search_qa.documents import Document

INDEXED = 100_000
"Characters of a document that can be found; the rest can be opened only."
FORMAT = 2
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
"Thai, Lao, Burmese, Khmer, kana, Chinese characters: written without spaces, so each is a word."
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_STOP = frozenset(
    _WORD.findall(
        "a an and are as at be but by for from had has have he her his in is it its of on or she that the their they "
        "this to was were what when where which who whom whose will with"
    )
)


class Store(Protocol):
    """Documents by place."""

    @property
    def ids(self) -> Iterable[str]: ...

    def __len__(self) -> int: ...

    def read(self, place: int, longest: int) -> Document:
        """The document; of its text at least `longest` characters, where it has them, and its whole length known."""
        ...


@dataclass(frozen=True, slots=True)
class Memory:
    documents: Sequence[Document]

    @property
    def ids(self) -> Iterable[str]:
        return (document.id for document in self.documents)

    def __len__(self) -> int:
        return len(self.documents)

    def read(self, place: int, longest: int) -> Document:
        document = self.documents[place]
        return Document(document.id, document.title, document.cut(longest))


class Folder:
    """Texts in one file, found by offset; only what is shown is read.

    The files are mapped, so an index that is made again under the same name does not change under a run.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "texts.bin"
        self._texts = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
        with (folder / "titles.jsonl").open(encoding="utf-8") as lines:
            self._titles: list[tuple[str, str, int]] = [tuple(json.loads(line)) for line in lines]
        self._offsets = np.load(folder / "offsets.npy", mmap_mode="r")

    @property
    def ids(self) -> Iterable[str]:
        return (title[0] for title in self._titles)

    def __len__(self) -> int:
        return len(self._titles)

    def read(self, place: int, longest: int) -> Document:
        name, title, characters = self._titles[place]
        begin, end = int(self._offsets[place]), int(self._offsets[place + 1])
        # A character has at most four bytes.
        text = self._texts[begin : min(end, begin + 4 * longest + 4)].tobytes().decode(errors="ignore")
        if characters > longest:
            text = f"{text[:longest]}\n[cut: {characters:,} characters, the first {longest:,} are shown]"
        return Document(name, title, text)


class Index:
    """Who finds documents by words."""

    def __init__(self, ranker: Any, store: Store) -> None:
        self._ranker = ranker
        self._store = store

    def __len__(self) -> int:
        return len(self._store)

    @property
    def ids(self) -> Iterable[str]:
        return self._store.ids

    def search(self, query: str, count: int, longest: int) -> list[Document]:
        """At most `count` documents that share a word with the query, the best first; texts cut at `longest`."""
        known = [word for word in dict.fromkeys(words(query)) if word in self._ranker.vocab_dict]
        if not known:
            return []
        scores = self._ranker.get_scores(known)
        best = [place for place in _top(scores, count) if scores[place] > 0]
        return [self._store.read(int(place), longest) for place in best]


def build(documents: Sequence[Document]) -> Index:
    """An index in memory. Raises `InvalidDataError` where there is nothing to find."""
    return Index(_rank(documents)[0], Memory(documents))


@dataclass(frozen=True, slots=True)
class Saved:
    """Documents of an index that was written."""

    documents: int
    long: int
    "Of which only the beginning can be found."
    wordless: int
    "That no word finds."


def save(documents: Iterable[Document], folder: Path) -> Saved:
    """Writes an index, whole or not at all.

    Raises `InvalidDataError` for a broken corpus, and `ConfigError` where the folder holds something.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: name a new folder for the index, or remove it.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        saved = _write(documents, beside)
        beside.chmod(0o755)
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return saved


def _write(documents: Iterable[Document], folder: Path) -> Saved:
    offsets, long = [0], 0

    def written() -> Iterator[Document]:
        nonlocal long
        with (
            (folder / "texts.bin").open("wb") as texts,
            (folder / "titles.jsonl").open("w", encoding="utf-8") as titles,
        ):
            for document in documents:
                offsets.append(offsets[-1] + texts.write(document.text.encode()))
                titles.write(json.dumps([document.id, document.title, len(document.text)]) + "\n")
                long += len(document.text) > INDEXED
                yield document

    ranker, wordless = _rank(written())
    np.save(folder / "offsets.npy", np.asarray(offsets, dtype=np.int64))
    ranker.save(str(folder / "bm25"), show_progress=False)
    (folder / "index.json").write_text(json.dumps({"format": FORMAT, "documents": len(offsets) - 1}), encoding="utf-8")
    return Saved(len(offsets) - 1, long, wordless)


def load(folder: Path) -> Index:
    """Raises `ConfigError` where there is no index, or one of another format."""
    try:
        about = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    except OSError:
        raise ConfigError(
            f"there is no search index at {folder}. Make one: agentrl search index CORPUS {folder}"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{folder / 'index.json'} cannot be read ({error}). Make the index again.") from None
    found = about.get("format") if isinstance(about, dict) else about
    if found != FORMAT:
        raise ConfigError(f"the index at {folder} has format {found}; {FORMAT} is read. Make it again.")
    import bm25s

    try:
        ranker = bm25s.BM25.load(str(folder / "bm25"), mmap=True, show_progress=False)
        store = Folder(folder)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the index at {folder} is damaged ({error}). Make it again.") from error
    if len(store) != about["documents"]:
        raise ConfigError(f"the index at {folder} holds {len(store)} of {about['documents']} documents. Make it again.")
    return Index(ranker, store)


def words(text: str) -> list[str]:
    """In one case and one Unicode form, without the commonest English words."""
    plain = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return [word for word in _WORD.findall(plain) if word not in _STOP]


def _rank(documents: Iterable[Document]) -> tuple[Any, int]:
    """The ranker, and how many documents hold no word."""
    # Here, since it takes half a second where numba is installed.
    import bm25s
    from bm25s.tokenization import Tokenized

    vocabulary: dict[str, int] = {}
    ids = [
        [vocabulary.setdefault(word, len(vocabulary)) for word in words(f"{document.title} {document.text[:INDEXED]}")]
        for document in documents
    ]
    if not vocabulary:
        raise InvalidDataError(f"the corpus has {len(ids)} documents and no word that could be found.")
    ranker = bm25s.BM25(backend="numpy")
    ranker.index(Tokenized(ids, vocabulary), show_progress=False)
    return ranker, sum(not known for known in ids)


def _top(scores: Any, count: int) -> Any:
    """The best places, ties by place, without sorting a large corpus."""
    bar = np.partition(scores, -count)[-count] if count < len(scores) else scores.min()
    places = np.flatnonzero(scores >= bar)
    return places[np.lexsort((places, -scores[places]))][:count]
