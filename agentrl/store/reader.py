"""A run's or an evaluation's folder, read while it is written or long after.

A reader writes nothing, takes no lock, and loads one episode at a time.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import msgspec

from agentrl.errors import StoreError, UnknownFolderError, did_you_mean
from agentrl.store.ledger import LEDGER, LOCK, PAYLOADS, TRAINED
from agentrl.store.payloads import read_record
from agentrl.store.records import Trained, decode, decode_trained
from agentrl.store.rows import COLUMNS, EpisodeRow
from agentrl.store.schema import SCHEMA_VERSION
from agentrl.types import Group, Task, Trajectory

NAMED = 5
"Folders that a message names."


class FolderReader:
    """Raises `UnknownFolderError` where the folder holds no ledger, `StoreError` for one of another version."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._turn = threading.Lock()
        path = folder / LEDGER
        if not path.is_file():
            raise UnknownFolderError(f"{folder} is no run and no evaluation: {_lacking(folder)}")
        try:
            self._database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False)
            found = self._database.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"{path} cannot be read: {error}.") from error
        if found != (str(SCHEMA_VERSION),):
            self.close()
            raise StoreError(
                f"{path} was written with ledger schema {found and found[0]}, and this is schema {SCHEMA_VERSION}; "
                "read it with the version of agentrl that wrote it."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    def live(self) -> bool:
        """Whether a process that is alive holds the folder as its writer."""
        try:
            holder = int((self.folder / LOCK).read_text())
            os.kill(holder, 0)
        except PermissionError:
            return True
        except (OSError, ValueError):
            return False
        return True

    def count(self) -> int:
        """Episodes that ended."""
        return int(self.query("SELECT count(*) FROM trajectories WHERE payload IS NOT NULL")[0][0])

    def rows(self, where: str = "1", parameters: tuple[object, ...] = (), order: str = "rowid") -> Iterator[EpisodeRow]:
        """Episodes that ended. `where` and `order` (also with a LIMIT) are SQL of this library, never a user's."""
        sql = f"SELECT {COLUMNS} FROM trajectories WHERE payload IS NOT NULL AND ({where}) ORDER BY {order}"
        for row in self.query(sql, parameters):
            yield EpisodeRow(*row)

    def trajectory(self, name: str) -> Trajectory:
        """One episode. Raises `StoreError` where none of that name has ended."""
        found = self.query("SELECT payload FROM trajectories WHERE id = ? AND payload IS NOT NULL", (name,))
        if not found:
            raise StoreError(f"{self.folder} holds no episode {name!r} that has ended. `agentrl view` lists them.")
        return decode(read_record(self.folder / PAYLOADS, found[0][0]))

    def group(self, name: str) -> Group:
        """The episodes of a group that have ended. Raises `StoreError` where it was never issued."""
        issued = self.query("SELECT task FROM groups WHERE id = ?", (name,))
        if not issued:
            raise StoreError(f"{self.folder} holds no group {name!r}. `agentrl view` lists them.")
        members = [row.id for row in self.rows("grp = ?", (name,), "member, id")]
        task = msgspec.json.decode(issued[0][0], type=Task)
        return Group(name, task, tuple(self.trajectory(member) for member in members))

    def trained(self, trajectory: str) -> list[Trained]:
        """What each batch that held the episode taught of it, oldest first; of none where none did."""
        found = self.query("SELECT place FROM trained WHERE trajectory = ? ORDER BY batch", (trajectory,))
        return [decode_trained(read_record(self.folder / TRAINED, place)) for (place,) in found]

    def query(self, sql: str, parameters: tuple[object, ...] = ()) -> list[Any]:
        """Rows. Raises `StoreError` for whatever the database does."""
        try:
            with self._turn, closing(self._database.execute(sql, parameters)) as cursor:
                return cursor.fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self.folder / LEDGER} cannot be read: {error}.") from error


def _lacking(folder: Path) -> str:
    """Why the folder is none of ours, and which one may have been meant."""
    if folder.is_file():
        return "it is a file. Name the folder that `agentrl train` or `agentrl eval` wrote."
    if not folder.exists():
        beside = map(str, folder.parent.iterdir()) if folder.parent.is_dir() else ()
        return f"there is no such folder.{did_you_mean(str(folder), beside)}"
    inside = [str(path.parent) for path in sorted(folder.glob(f"*/{LEDGER}"))]
    more = ", ..." if len(inside) > NAMED else ""
    return f"there is no {LEDGER} in it." + (f" In it there are {', '.join(inside[:NAMED])}{more}" if inside else "")
