"""Documents and questions, and how they are read from JSONL (plain or .gz) or parquet files.

A broken row is an error with its line (or row) number; nothing is skipped.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl.errors import InvalidDataError, MissingDependencyError
from search_qa.scoring import normalised


@dataclass(frozen=True, slots=True)
class Document:
    id: str
    title: str
    text: str

    def cut(self, longest: int) -> str:
        """The text, or its beginning and how much there is."""
        if len(self.text) <= longest:
            return self.text
        return f"{self.text[:longest]}\n[cut: {len(self.text):,} characters, the first {longest:,} are shown]"


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    answers: tuple[str, ...]
    "Any of them is right."
    sources: tuple[str, ...] = ()
    "Ids of the documents that hold the answer, in the order in which they are found; empty where nobody knows."
    trail: tuple[str, ...] = ()
    "Queries that find the sources, one each; made with the question, for the oracle."


def read_documents(path: Path) -> Iterator[Document]:
    """Rows with `id`, and `contents` (title in the first line), or `title` and `text`.

    Raises `InvalidDataError` with the number of the broken line, also of one whose id stands before.
    """
    seen: set[str] = set()
    for place, row in _rows(path):
        name = row.get("id", row.get("_id"))
        text = row.get("text", row.get("contents"))
        if not isinstance(name, str | int) or isinstance(name, bool) or not isinstance(text, str):
            raise InvalidDataError(
                f"{place} has the keys {', '.join(row) or 'none'} and the id {_short(name)}; a document has an `id`, "
                "text or a whole number, and `contents` or `text`, which is text."
            )
        document = document_of(str(name), text, row.get("title"))
        if document.id in seen:
            raise InvalidDataError(f"{place}: two documents have the id {_short(document.id)}; ids are unique.")
        seen.add(document.id)
        _whole(place, document.id, document.title, document.text)
        yield document


def document_of(name: str, text: str, title: object = None) -> Document:
    """Without a title, the first line of several is one; quotes around it are dropped."""
    if isinstance(title, str):
        return Document(name, title, text)
    first, _, rest = text.partition("\n")
    return Document(name, first.strip().strip('"'), rest) if rest.strip() else Document(name, "", text)


def read_questions(path: Path) -> list[Question]:
    """Rows with `question`, and `answers`, `answer` or `golden_answers` (text, number or list); `sources` may name
    documents.

    Raises `InvalidDataError` with the number of the broken line, also of one that asks what stands before: one of the
    two could be trained on and the other held out.
    """
    found: list[Question] = []
    first_seen: dict[str, str] = {}
    for place, row in _rows(path):
        given = next((row[key] for key in ("answers", "golden_answers", "answer") if row.get(key) is not None), None)
        question, answers = row.get("question"), _texts(given)
        if not isinstance(question, str) or not question.strip() or answers is None:
            raise InvalidDataError(
                f"{place} has the keys {', '.join(row) or 'none'} and the answer {_short(given)}; a question has "
                "`question`, and `answers`, `answer` or `golden_answers`: text, a number or a list of them."
            )
        right = [answer for answer in answers if normalised(answer)]
        if not right:
            raise InvalidDataError(f"{place} has the answers {_short(answers)}; none has a letter or a digit.")
        _whole(place, question, *right)
        key = " ".join(question.casefold().split())
        if key in first_seen:
            raise InvalidDataError(f"{place} asks what {first_seen[key]} asks; each question stands once.")
        first_seen[key] = place
        found.append(Question(question, tuple(right), tuple(_texts(row.get("sources")) or ())))
    if not found:
        raise InvalidDataError(f"{path} holds no question.")
    return found


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each row with its place, for error messages."""
    if not path.is_file():
        raise InvalidDataError(f"there is no file {path}; a JSONL or parquet file is needed.")
    if path.suffix == ".parquet":
        yield from _parquet(path)
        return
    for number, line in _lines(path):
        if line.strip():
            place = f"{path}:{number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                shown = line[:80].decode(errors="replace").rstrip()
                raise InvalidDataError(
                    f"{place} is no JSON ({error}): {shown!r}. One object a line is needed."
                ) from None
            if not isinstance(row, dict):
                raise InvalidDataError(f"{place} is a JSON {type(row).__name__}; an object is needed.")
            yield place, row


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            yield from enumerate(lines, 1)
    except (OSError, EOFError) as error:
        raise InvalidDataError(f"{path} cannot be read ({error}).") from error


def _texts(given: object) -> list[str] | None:
    """Texts of a text, a number or a list of them; None of anything else."""
    if isinstance(given, str | int | float):
        return [str(given)]
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        return None
    several = list(given)
    return [str(one) for one in several] if all(isinstance(one, str | int | float) for one in several) else None


def _whole(place: str, *texts: str) -> None:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise InvalidDataError(f"{place} holds half a character ({error}); write it as UTF-8.") from None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _parquet(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise MissingDependencyError(
            f"{path} is parquet, which needs pyarrow: pip install pyarrow, or use JSONL."
        ) from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except ArrowInvalid as error:
        raise InvalidDataError(f"{path} is no parquet file ({error}).") from error
