"""An append-only file of records: length, CRC-32, bytes.

A record is either whole or it is not there: a tail torn by a kill is cut off at the next opening, and an append
that fails leaves the file as it was.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from agentrl.errors import StoreError

_MAGIC = b"agentrl payloads 1\n"
_HEADER = struct.Struct("<II")


class PayloadFile:
    """The one writer of a payload file. Raises `StoreError` for whatever the disk does."""

    def __init__(self, path: Path, trusted: int = 0) -> None:
        """`trusted`: where the last acknowledged record begins; nothing up to its end is ever cut off."""
        self.path = path
        self.torn = 0
        "Bytes of an unfinished tail that were cut off at opening."
        self._file = -1
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            self._end = self._opened(trusted)
        except OSError as error:
            self.close()
            raise _store_error(path, "opened", error) from error

    def append(self, records: Sequence[bytes]) -> list[int]:
        """Write `records` at the end and return their offsets. Not safe before `sync`."""
        offsets = []
        parts = []
        end = self._end
        for record in records:
            offsets.append(end)
            parts += [_HEADER.pack(len(record), zlib.crc32(record)), record]
            end += _HEADER.size + len(record)
        try:
            _write(self._file, b"".join(parts), self._end)
        except OSError as error:
            os.ftruncate(self._file, self._end)
            raise _store_error(self.path, "written", error) from error
        self._end = end
        return offsets

    def sync(self) -> None:
        """Returns when everything appended is on the disk."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise _store_error(self.path, "synced", error) from error

    def read(self, offset: int) -> bytes:
        """The record at `offset`. Raises `StoreError` where none is."""
        record = _read(self._file, offset, self._end)
        if record is None:
            raise StoreError(f"{self.path} holds no whole record at {offset}; the file is damaged or of another run.")
        return record

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _opened(self, trusted: int) -> int:
        """Check what is there, cut off a torn tail, and return the end."""
        size = os.fstat(self._file).st_size
        if size < len(_MAGIC) and not trusted:
            os.ftruncate(self._file, 0)
            _write(self._file, _MAGIC, 0)
            return len(_MAGIC)
        if size:
            _check_magic(self.path, os.pread(self._file, len(_MAGIC), 0))
        end = trusted or len(_MAGIC)
        while (record := _read(self._file, end, size)) is not None:
            end += _HEADER.size + len(record)
        if trusted and end == trusted:
            raise StoreError(
                f"{self.path} has {size} bytes, and the ledger knows of a record at {trusted}: the file was cut or "
                "damaged. Restore it from a copy, or start in a new folder."
            )
        self.torn = size - end
        os.ftruncate(self._file, end)
        return end


def read_record(path: Path, offset: int) -> bytes:
    """One record of a file that another process may be writing. Raises `StoreError` where none is at `offset`."""
    try:
        with path.open("rb") as file:
            record = _read(file.fileno(), offset, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise _store_error(path, "read", error) from error
    if record is None:
        raise StoreError(f"{path} holds no whole record at {offset}; the file is damaged or of another run.")
    return record


def read_payloads(path: Path) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of every whole record, also while another process appends."""
    try:
        with path.open("rb") as file:
            _check_magic(path, file.read(len(_MAGIC)))
            offset = len(_MAGIC)
            size = os.fstat(file.fileno()).st_size
            while (record := _read(file.fileno(), offset, size)) is not None:
                yield offset, record
                offset += _HEADER.size + len(record)
    except OSError as error:
        raise _store_error(path, "read", error) from error


def _read(file: int, offset: int, size: int) -> bytes | None:
    """The record at `offset`, or None where it is not whole."""
    if offset < len(_MAGIC) or offset + _HEADER.size > size:
        return None
    length, check = _HEADER.unpack(os.pread(file, _HEADER.size, offset))
    if offset + _HEADER.size + length > size:
        return None
    record = os.pread(file, length, offset + _HEADER.size)
    return record if len(record) == length and zlib.crc32(record) == check else None


def _write(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def _check_magic(path: Path, found: bytes) -> None:
    if found != _MAGIC:
        raise StoreError(f"{path} is no payload file of this version: it begins with {found!r}.")


def _store_error(path: Path, what: str, error: OSError) -> StoreError:
    if isinstance(error, StoreError):
        return error
    return StoreError(
        f"{path} cannot be {what}: {error.strerror or error}. Everything acknowledged before is kept; "
        "free space or fix the permissions, then run the same command again."
    )
