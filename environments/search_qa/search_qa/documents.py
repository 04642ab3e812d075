"""Documents and questions, and how they are read from JSONL or parquet files.

A broken row is an error with its line (or row) number; nothing is skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl.errors import InvalidDataError, MissingDependencyError


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

    Raises `InvalidDataError` with the number of the broken line.
    """
    for place, row in _rows(path):
        name = row.get("id", row.get("_id"))
        text = row.get("text", row.get("contents"))
        if not isinstance(name, str | int) or isinstance(name, bool) or not isinstance(text, str):
            raise InvalidDataError(
                f"{place} has the keys {', '.join(row) or 'none'}; a document has an `id`, and `contents` or `text`, "
                "which are text."
            )
        yield document_of(str(name), text, row.get("title"))


def document_of(name: str, text: str, title: object = None) -> Document:
    """Without a title, the first line of several is one; quotes around it are dropped."""
    if isinstance(title, str):
        return Document(name, title, text)
    first, _, rest = text.partition("\n")
    return Document(name, first.strip().strip('"'), rest) if rest.strip() else Document(name, "", text)


def read_questions(path: Path) -> list[Question]:
    """Rows with `question`, and `answers`, `answer` or `golden_answers` (text or list); `sources` may name documents.

    Raises `InvalidDataError` with the number of the broken line.
    """
    found = []
    for place, row in _rows(path):
        given = next((row[key] for key in ("answers", "golden_answers", "answer") if row.get(key) is not None), None)
        # Columns of a parquet file come as arrays.
        answers = (
            [given] if isinstance(given, str) else [str(answer) for answer in (given if given is not None else ())]
        )
        if not isinstance(row.get("question"), str) or not any(answer.strip() for answer in answers):
            raise InvalidDataError(
                f"{place} has the keys {', '.join(row) or 'none'}; a question has `question`, and `answers`, `answer` "
                "or `golden_answers` with at least one answer."
            )
        sources = row.get("sources")
        found.append(Question(row["question"], tuple(answers), tuple(map(str, sources if sources is not None else ()))))
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
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            place = f"{path}:{number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                shown = line[:80].decode(errors="replace").rstrip()
                raise InvalidDataError(
                    f"{place} is no JSON ({error}): {shown!r}. One object a line is needed."
                ) from None
            if not isinstance(row, dict):
                raise InvalidDataError(f"{place} is a JSON {type(row).__name__}; an object is needed.")
            yield place, row


def _parquet(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise MissingDependencyError(
            f"{path} is parquet, which needs pyarrow: pip install 'agentrl-search-qa[parquet]', or use JSONL."
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
