"""The ledger of a run: which groups were issued, what came of them, and what was trained.

A payload is on the disk before its row, a checkpoint before its head; a run killed at any moment continues from
these rows with no task lost and no trajectory trained twice.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from agentrl.errors import StoreError
from agentrl.store.images import ImageStore
from agentrl.store.payloads import PayloadFile
from agentrl.store.records import Trained, decode, encode, encode_trained
from agentrl.store.rows import FINISH, row_of
from agentrl.store.schema import SCHEMA, SCHEMA_VERSION
from agentrl.types import JSON, GroupName, Settlement, Task, Trajectory

LEDGER, PAYLOADS, TRAINED, LOCK = "ledger.sqlite", "payloads.bin", "trained.bin", "ledger.lock"


@dataclass(frozen=True, slots=True)
class Head:
    """The last checkpoint, with what belongs to the same moment."""

    update: int
    "How many batches are behind the checkpoint's weights."
    checkpoint: str
    "Its folder, relative to the run's."
    ordinal: int
    "How many tasks the sampler had given."
    sampler: JSON
    "The sampler's state."


@dataclass(frozen=True, slots=True)
class UnfinishedGroup:
    """A group that was issued and not trained."""

    id: str
    ordinal: int
    task: Task
    size: int
    recorded: dict[int, Trajectory]
    "Members that ended well and are fresh enough to be used; the others are played again."
    settled: Settlement | None = None
    "What was said of the group as a whole; None from the moment that anything is recorded anew in it."


@dataclass(frozen=True, slots=True)
class ResumeState:
    head: Head | None
    "None where no checkpoint was made yet."
    groups: tuple[UnfinishedGroup, ...]
    "In the order in which they were issued."

    @property
    def update(self) -> int:
        return self.head.update if self.head else 0

    @property
    def ordinal(self) -> int:
        return self.head.ordinal if self.head else 0


class Ledger:
    """The one writer of a run folder's `ledger.sqlite` and `payloads.bin`. Blocking; calls from threads take turns."""

    def __init__(self, folder: Path) -> None:
        """Raises `StoreError` where another process has the folder, or the disk does not play along."""
        self.folder = folder
        self._turn = threading.RLock()
        self._holds = False
        self._images = ImageStore(folder)
        with self._errors("opened"):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        self._database: sqlite3.Connection | None = None
        self._payloads: PayloadFile | None = None
        self._trained: PayloadFile | None = None
        try:
            self._take_lock()
            with self._errors("opened"):
                self._database = self._opened()
                last = self._database.execute("SELECT max(payload) FROM trajectories").fetchone()[0]
            self._payloads = PayloadFile(folder / PAYLOADS, last or 0)
            self._trained = PayloadFile(folder / TRAINED)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def torn(self) -> int:
        """Bytes of an unfinished record that were cut off at opening."""
        assert self._payloads is not None
        return self._payloads.torn

    def issue(self, ordinal: int, group: str, task: Task, members: Sequence[str]) -> None:
        """Note a group before its first episode begins. `members` are the trajectory ids, in order."""
        with self._transaction() as database:
            # After a rewind the sampler may draw another task in this place: what stood here is superseded.
            database.execute(
                "UPDATE groups SET state = 'dropped', reason = 'superseded' WHERE ordinal = ? AND state = 'live'",
                (ordinal,),
            )
            self._insert(database, ordinal, group, msgspec.json.encode(task).decode(), members)

    def extend(self, groups: Sequence[tuple[int, str, Task, Sequence[str]]]) -> None:
        """Issue groups (ordinal, id, task, members), or more members of them; what is there stays as it is."""
        with self._transaction() as database:
            for ordinal, group, task, members in groups:
                database.execute(
                    "INSERT INTO groups (id, ordinal, task, size, state) VALUES (?, ?, ?, ?, 'live') "
                    "ON CONFLICT (id) DO UPDATE SET size = max(size, excluded.size)",
                    (group, ordinal, msgspec.json.encode(task).decode(), len(members)),
                )
                database.executemany(
                    "INSERT OR IGNORE INTO trajectories (id, grp, member, state) VALUES (?, ?, ?, 'issued')",
                    [(trajectory, group, member) for member, trajectory in enumerate(members)],
                )

    def finish(self, *trajectories: Trajectory) -> None:
        """Keep what ended: when this returns, it survives a kill. One sync for all of them."""
        if not trajectories:
            return
        trajectories = tuple(map(self._images.keep, trajectories))
        records = [encode(trajectory) for trajectory in trajectories]
        with self._turn:
            assert self._payloads is not None
            offsets = self._payloads.append(records)
            self._payloads.sync()
            rows = [row_of(trajectory, offset) for trajectory, offset in zip(trajectories, offsets, strict=True)]
            with self._transaction("FULL") as database:
                database.executemany(FINISH, rows)
                # What was said of the group as a whole was said of other members.
                database.executemany("DELETE FROM settlements WHERE grp = ?", {(t.group,) for t in trajectories})

    def settle(self, group: str, settlement: Settlement) -> None:
        """Keep what was said of a complete group: when this returns, a kill does not make anyone say it again."""
        with self._transaction() as database:
            said = msgspec.json.encode(settlement).decode()
            database.execute("INSERT OR REPLACE INTO settlements (grp, said) VALUES (?, ?)", (group, said))

    def keep_trained(self, batch: int, trained: Sequence[Trained]) -> None:
        """What a batch taught, token by token, for people to look at; a resumed run that repeats it says it again."""
        with self._turn:
            assert self._trained is not None
            places = self._trained.append([encode_trained(one) for one in trained])
            with self._transaction() as database:
                database.execute("DELETE FROM trained WHERE batch >= ?", (batch,))
                database.executemany(
                    "INSERT INTO trained (trajectory, batch, place) VALUES (?, ?, ?)",
                    [(one.trajectory, batch, place) for one, place in zip(trained, places, strict=True)],
                )

    def drop(self, group: str, reason: str) -> None:
        """The group will not be used, and its task is not issued again."""
        with self._transaction() as database:
            database.execute("UPDATE groups SET state = 'dropped', reason = ? WHERE id = ?", (reason, group))

    def reissue(self, group: str, fresh: str, members: Sequence[str]) -> None:
        """Drop a stale group and issue its task once more as `fresh`, in one transaction: the task cannot get lost."""
        with self._transaction() as database:
            ordinal, task = database.execute("SELECT ordinal, task FROM groups WHERE id = ?", (group,)).fetchone()
            database.execute("UPDATE groups SET state = 'dropped', reason = 'stale' WHERE id = ?", (group,))
            self._insert(database, ordinal, fresh, task, members)

    def batched(self, update: int, trajectories: Sequence[str]) -> None:
        """Batch number `update` is cut (the first of a run is 1).

        Raises `StoreError` where one of them is in a batch already or did not end well.
        """
        with self._transaction() as database:
            changed = database.executemany(
                "UPDATE trajectories SET state = 'batched', batch = ? WHERE id = ? AND state = 'done'",
                [(update, trajectory) for trajectory in trajectories],
            ).rowcount
            if changed != len(trajectories):
                raise StoreError(
                    f"{len(trajectories) - changed} of {len(trajectories)} trajectories of batch "
                    f"{update} are not free to be trained on: a trajectory is used once, and only where it is done."
                )

    def set_head(self, update: int, checkpoint: str, sampler: JSON, ordinal: int) -> None:
        """Commit a checkpoint that lies on the disk: batches up to number `update` are trained for good."""
        with self._transaction("FULL") as database:
            database.execute(
                "INSERT OR REPLACE INTO head (one, batch, checkpoint, ordinal, sampler) VALUES (1, ?, ?, ?, ?)",
                (update, checkpoint, ordinal, msgspec.json.encode(sampler).decode()),
            )
            trained = "state = 'batched' AND batch <= ?"
            database.execute(
                f"UPDATE groups SET state = 'trained' WHERE id IN (SELECT grp FROM trajectories WHERE {trained})",
                (update,),
            )
            database.execute(f"UPDATE trajectories SET state = 'trained' WHERE {trained}", (update,))

    def head(self) -> Head | None:
        with self._turn, self._errors("read"):
            assert self._database is not None
            row = self._database.execute("SELECT batch, checkpoint, ordinal, sampler FROM head").fetchone()
        return None if row is None else Head(row[0], row[1], row[2], msgspec.json.decode(row[3]))

    def resume(self, version: int, max_staleness: int) -> ResumeState:
        """Rewind to the head, and say what is to be done again.

        `version` is that of the weights that sampling goes on with. A trajectory is reused where all its tokens are
        at most `max_staleness` versions older, and none is newer: newer weights are lost with the kill.
        """
        with self._turn:
            head = self.head()
            ordinal = head.ordinal if head else 0
            with self._transaction() as database:
                database.execute("UPDATE trajectories SET state = 'done', batch = NULL WHERE state = 'batched'")
                # The sampler draws again from the head on, so what was decided about later groups is undone.
                database.execute(
                    "UPDATE groups SET state = 'live', reason = '' WHERE ordinal >= ? AND state = 'dropped' "
                    "AND again(id) = 0",
                    (ordinal,),
                )
                database.execute(
                    "UPDATE groups SET state = 'dropped', reason = 'rewound' WHERE ordinal >= ? AND state = 'live' "
                    "AND again(id) > 0",
                    (ordinal,),
                )
                again = (
                    "(state = 'failed' OR state = 'done' AND (oldest < ? OR newest > ?)) "
                    "AND grp IN (SELECT id FROM groups WHERE state = 'live')"
                )
                bounds = (version - max_staleness, version)
                # What is played again has the names that it had: what was said of it then would pass for what is now.
                said = f"DELETE FROM settlements WHERE grp IN (SELECT grp FROM trajectories WHERE {again})"
                database.execute(said, bounds)
                database.execute(f"UPDATE trajectories SET state = 'issued', payload = NULL WHERE {again}", bounds)
            return ResumeState(head, tuple(self._unfinished()))

    def trajectory(self, name: str) -> Trajectory:
        """One that ended, as it was recorded. Raises `StoreError` where there is none of that name."""
        with self._turn, self._errors("read"):
            assert self._database is not None and self._payloads is not None
            row = self._database.execute(
                "SELECT payload FROM trajectories WHERE id = ? AND payload IS NOT NULL", (name,)
            ).fetchone()
            if row is None:
                raise StoreError(
                    f"{self.folder} holds no trajectory {name!r} that has ended. `agentrl view` lists them."
                )
            return decode(self._payloads.read(row[0]))

    def counts(self) -> dict[str, int]:
        """Trajectories by state, for reports and tests."""
        with self._turn, self._errors("read"):
            assert self._database is not None
            return dict(self._database.execute("SELECT state, count(*) FROM trajectories GROUP BY state").fetchall())

    def close(self) -> None:
        """Give the folder back. May be called twice."""
        with self._turn:
            if self._database is not None:
                self._database.close()
                self._database = None
            for file in (self._payloads, self._trained):
                if file is not None:
                    file.close()
            self._payloads = self._trained = None
            if self._lock >= 0:
                # Who looks from outside takes no lock: an empty file says that nobody writes.
                if self._holds:
                    os.ftruncate(self._lock, 0)
                os.close(self._lock)
                self._lock = -1

    def _unfinished(self) -> Iterator[UnfinishedGroup]:
        assert self._database is not None and self._payloads is not None
        rows = self._database.execute(
            "SELECT id, ordinal, task, size FROM groups WHERE state = 'live' ORDER BY ordinal"
        ).fetchall()
        for group, ordinal, task, size in rows:
            done = self._database.execute(
                "SELECT member, payload FROM trajectories WHERE grp = ? AND state = 'done' AND member >= 0", (group,)
            ).fetchall()
            recorded = {member: decode(self._payloads.read(payload)) for member, payload in done}
            said = self._database.execute("SELECT said FROM settlements WHERE grp = ?", (group,)).fetchone()
            settled = None if said is None else msgspec.json.decode(said[0], type=Settlement)
            yield UnfinishedGroup(group, ordinal, msgspec.json.decode(task, type=Task), size, recorded, settled)

    def _insert(
        self, database: sqlite3.Connection, ordinal: int, group: str, task: str, members: Sequence[str]
    ) -> None:
        database.execute("DELETE FROM trajectories WHERE grp = ?", (group,))
        database.execute("DELETE FROM settlements WHERE grp = ?", (group,))
        database.execute(
            "INSERT OR REPLACE INTO groups (id, ordinal, task, size, state) VALUES (?, ?, ?, ?, 'live')",
            (group, ordinal, task, len(members)),
        )
        database.executemany(
            "INSERT INTO trajectories (id, grp, member, state) VALUES (?, ?, ?, 'issued')",
            [(trajectory, group, member) for member, trajectory in enumerate(members)],
        )

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip() or "unknown"
            raise StoreError(
                f"{self.folder} is in use by another run (process {holder}). Wait for it, stop it, or choose another "
                "folder."
            ) from error
        self._holds = True
        with self._errors("opened"):
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def _opened(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.folder / LEDGER, isolation_level=None, check_same_thread=False, timeout=30.0)
        try:
            database.create_function("again", 1, _again, deterministic=True)
            database.execute("PRAGMA journal_mode = WAL")
            # One transaction: a page of the log for each table, not several.
            database.executescript(f"BEGIN; {SCHEMA} COMMIT;")
            database.execute("INSERT OR IGNORE INTO meta VALUES ('schema', ?)", (str(SCHEMA_VERSION),))
            found = database.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()[0]
            if found != str(SCHEMA_VERSION):
                raise StoreError(
                    f"{self.folder} was written with ledger schema {found}; this is schema {SCHEMA_VERSION}. "
                    "Go on with the version of agentrl that began the run, or start in a new folder."
                )
        except BaseException:
            database.close()
            raise
        return database

    @contextmanager
    def _transaction(self, sync: str = "NORMAL") -> Iterator[sqlite3.Connection]:
        """All or nothing. Raises `StoreError` for what the disk does.

        NORMAL survives a kill of the process; FULL also a power cut, and with it everything written before, because
        the write-ahead log is one sequence.
        """
        with self._turn, self._errors("written"):
            if self._database is None:
                raise StoreError(f"the ledger of {self.folder} is closed.")
            database = self._database
            database.execute(f"PRAGMA synchronous = {sync}")
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"the ledger in {self.folder} cannot be {what}: {error}. Everything acknowledged before is kept; "
                "free space or fix the permissions, then run the same command again."
            ) from error


def _again(group: str) -> int:
    """How often the group's task had been issued before it."""
    name = GroupName.read(group)
    return 0 if name is None else name.again
