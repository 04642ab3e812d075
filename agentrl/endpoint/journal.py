"""The answers of the sessions that are open, one after another in a file, so that a kill loses none of them.

An answer is written before its client is told. It is not synced: what was written outlives its process, though not a
power cut; the record of the whole session is synced when it ends, and its answers here are then of no more use.
"""

from __future__ import annotations

from pathlib import Path

from agentrl.store.payloads import PayloadFile, read_payloads
from agentrl.store.records import Answer, decode_answer, encode_answer
from agentrl.types import Step

ANSWERS = "answers.bin"


class Journal:
    """The one writer of the file, which is there while a session is open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: PayloadFile | None = None
        self._open: set[str] = set()
        "Episodes with answers in the file that are not recorded yet."

    def read(self) -> dict[str, list[Step]]:
        """What an earlier writer left, by episode, in the order in which it was given."""
        found: dict[str, list[Step]] = {}
        if self._path.exists():
            for _, record in read_payloads(self._path):
                answer = decode_answer(record)
                found.setdefault(answer.trajectory, []).append(answer.step)
        return found

    def keep(self, episode: str, step: Step) -> None:
        """Raises `StoreError`."""
        if self._file is None:
            self._file = PayloadFile(self._path)
        self._open.add(episode)
        self._file.append([encode_answer(Answer(episode, step))])

    def forget(self, episode: str) -> None:
        """It is recorded. When that is true of all, the file begins anew, and so never outgrows the ledger's."""
        self._open.discard(episode)
        if not self._open:
            self.clear()

    def clear(self) -> None:
        self.close()
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
