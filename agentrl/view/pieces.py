"""Token ids as text, one by one, from a tokenizer's file alone: no tokenizer library is loaded to look at a run.

An id is never hidden: bytes that are no whole character are written as escapes, unknown ids as digits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy.typing as npt

from agentrl.errors import StoreError

Ids = Sequence[int] | npt.NDArray[Any]
FILE = "tokenizer.json"


class _Added(msgspec.Struct):
    id: int
    content: str


class _Model(msgspec.Struct):
    vocab: dict[str, int] | list[tuple[str, float]]
    "By piece, or (unigram models) pieces with their scores, in order."


class _File(msgspec.Struct):
    model: _Model
    added_tokens: list[_Added] = []
    decoder: msgspec.Raw = msgspec.Raw(b"null")


class Pieces:
    """The text behind token ids. Without a file, of which there may be none, ids are shown as digits."""

    def __init__(
        self, vocabulary: dict[int, str], written: Callable[[str], bytes] = str.encode, separator: bytes = b""
    ) -> None:
        """`written` gives the bytes behind a piece of the vocabulary."""
        self._vocabulary = vocabulary
        self._written = written
        self._separator = separator
        self._added: dict[int, str] = {}

    @classmethod
    def load(cls, folder: Path) -> Pieces:
        """Of a model folder. Raises `StoreError` for a file that is no tokenizer."""
        path = folder / FILE
        try:
            found = msgspec.json.decode(path.read_bytes(), type=_File)
        except (OSError, msgspec.MsgspecError) as error:
            raise StoreError(f"{path} cannot be read as a tokenizer: {error}.") from error
        vocab = found.model.vocab
        pieces = vocab.items() if isinstance(vocab, dict) else ((piece, i) for i, (piece, _) in enumerate(vocab))
        decoder = bytes(found.decoder)
        written: Callable[[str], bytes] = str.encode
        if b'"ByteLevel"' in decoder:
            written = _from_byte_level
        elif b"\xe2\x96\x81" in decoder or b"\\u2581" in decoder:
            written = _from_metaspace
        # A vocabulary without a decoder is one of words.
        made = cls({i: piece for piece, i in pieces}, written, b" " if decoder == b"null" else b"")
        made._added = {added.id: added.content for added in found.added_tokens}
        return made

    def each(self, ids: Ids) -> list[str]:
        """One text an id."""
        return [piece.decode(errors="backslashreplace") for piece in self._bytes(ids)]

    def text(self, ids: Ids) -> str:
        separator = self._separator if self._vocabulary else b" "
        return separator.join(self._bytes(ids)).decode(errors="replace")

    def _bytes(self, ids: Ids) -> list[bytes]:
        return [self._piece(i) for i in map(int, ids)]

    def _piece(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].encode()
        return self._written(self._vocabulary[token]) if token in self._vocabulary else str(token).encode()


def _byte_table() -> dict[str, int]:
    """The characters by which byte-level tokenizers write bytes: printable ones as they are, others above 255."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + place): byte for place, byte in enumerate(hidden)}


_BYTES = _byte_table()


def _from_byte_level(piece: str) -> bytes:
    if all(character in _BYTES for character in piece):
        return bytes(_BYTES[character] for character in piece)
    return piece.encode()


def _from_metaspace(piece: str) -> bytes:
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes.fromhex(piece[3:5])
    return piece.replace("\u2581", " ").encode()
