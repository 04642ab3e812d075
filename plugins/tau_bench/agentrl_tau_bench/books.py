"""The database of one episode, and what in it differs from the one that every episode begins with.

Two databases are equal where the same records differ in the same way: that is the benchmark's comparison of hashes of
the whole, at a fiftieth of its cost.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from agentrl_tau_bench.checkout import Checkout, Database, open_checkout


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    failed: bool
    "The tool raised, as a rule for the arguments that it was given."


class Books:
    def __init__(self, checkout: Checkout) -> None:
        self._checkout = checkout
        self._data = _fresh(checkout.folder)

    def call(self, name: str, arguments: Mapping[str, Any]) -> Answer:
        """A tool's answer; what it raises is told, as the benchmark does."""
        try:
            return Answer(self._checkout.invoke(self._data, name, arguments), False)
        except Exception as error:
            return Answer(f"Error: {error}", True)

    def changes(self) -> dict[str, str]:
        """Records that differ from the first ones, as JSON by `table/key`; empty text for one that is gone."""
        first, now = _first(self._checkout.folder)[1], _records(self._data)
        found = {place: text.decode() for place, text in now.items() if first.get(place) != text}
        return found | {place: "" for place in first if place not in now}

    def put_back(self, changes: Mapping[str, str]) -> None:
        """Make the differences of a fresh database those of another one."""
        self._data = _fresh(self._checkout.folder)
        for place, text in changes.items():
            table, _, key = place.partition("/")
            if text:
                self._data[table][key] = msgspec.json.decode(text)
            else:
                del self._data[table][key]


def _fresh(folder: Path) -> Database:
    """Read from bytes that are kept: the checkout's own loading takes twice as long."""
    data: Database = msgspec.json.decode(_first(folder)[0])
    return data


@functools.lru_cache(maxsize=4)
def _first(folder: Path) -> tuple[bytes, dict[str, bytes]]:
    """The database of a checkout, whole and by records."""
    data = open_checkout(str(folder)).load()
    return msgspec.json.encode(data), _records(data)


def _records(data: Database) -> dict[str, bytes]:
    # Sorted keys, and 1 is not 1.0: as the text that the benchmark hashes.
    encode = msgspec.json.Encoder(order="sorted").encode
    return {f"{table}/{key}": encode(record) for table, records in data.items() for key, record in records.items()}
