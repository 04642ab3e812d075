"""Which episodes are listed: a filter as the page's address says it, answered by the ledger's columns.

What a person typed is always a bound parameter, never a part of the SQL; nothing loads all rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import msgspec

from agentrl.errors import InvalidDataError, StoreError
from agentrl.store.ledger import PAYLOADS
from agentrl.store.payloads import read_record
from agentrl.store.reader import FolderReader
from agentrl.store.records import decode
from agentrl.store.rows import EpisodeRow
from agentrl.types import Message, Trajectory
from agentrl.view.shapes import EpisodePage

LONGEST_PAGE = 1000
SCANNED_BYTES = 64_000_000
"Of payloads that one search inside the episodes reads."
SCANNED = 20_000
"Episodes that it looks at, the newest first unless the list is sorted otherwise."
FOUND = 500
"Episodes that such a search finds, at most."
_COLUMNS = {field.name: field.name for field in fields(EpisodeRow)} | {"group": "grp"}
_NAMED = "id || ' ' || coalesce(task, '') || ' ' || coalesce(outcome, '') || ' ' || coalesce(error, '')"


@dataclass(frozen=True, slots=True)
class Query:
    """Empty fields do not filter."""

    outcome: str = ""
    "One, or several joined by commas."
    task: str = ""
    batch: int | None = None
    group: str = ""
    source: str = ""
    search: str = ""
    "Part of the id, the task, the outcome or the error; in any case of its letters."
    inside: bool = False
    "Look for it in what was said in the episodes too."
    sort: str = ""
    "A field of `EpisodeRow`, with `-` in front for descending; the ledger's order where empty."
    offset: int = 0
    limit: int = 100


def read_query(parameters: Mapping[str, str]) -> Query:
    """Raises `InvalidDataError` that says which parameter is wrong."""
    try:
        query = msgspec.convert({k: v for k, v in parameters.items() if v != ""}, Query, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidDataError(f"the list of episodes cannot be asked for so: {error}.") from None
    if query.sort.removeprefix("-") not in ("", *_COLUMNS):
        raise InvalidDataError(f"episodes are not sorted by {query.sort!r}; allowed: {', '.join(_COLUMNS)}.")
    if query.offset < 0 or not 1 <= query.limit <= LONGEST_PAGE:
        raise InvalidDataError(
            f"offset is {query.offset} and limit {query.limit}; a page begins at 0 or later and has 1 to "
            f"{LONGEST_PAGE} lines."
        )
    return query


def find_episodes(reader: FolderReader, query: Query) -> EpisodePage:
    where, parameters = _where(query)
    order = _order(query.sort)
    if query.search and query.inside:
        return _inside(reader, query, where, parameters, order if query.sort else "rowid DESC")
    if query.search:
        where, parameters = f"{where} AND instr(lower({_NAMED}), ?) > 0", (*parameters, query.search.lower())
    total = reader.query(f"SELECT count(*) FROM trajectories WHERE payload IS NOT NULL AND {where}", parameters)[0][0]
    page = f"{order} LIMIT {query.limit} OFFSET {query.offset}"
    return EpisodePage(total, query.offset, list(reader.rows(where, parameters, page)))


def _where(query: Query) -> tuple[str, tuple[object, ...]]:
    outcomes = tuple(part for part in query.outcome.split(",") if part)
    parts = {
        f"outcome IN ({', '.join('?' * len(outcomes))})": outcomes,
        "task = ?": (query.task,) if query.task else (),
        "batch = ?": () if query.batch is None else (query.batch,),
        "grp = ?": (query.group,) if query.group else (),
        "source = ?": (query.source,) if query.source else (),
    }
    used = {sql: values for sql, values in parts.items() if values}
    return " AND ".join(("1", *used)), tuple(value for values in used.values() for value in values)


def _order(sort: str) -> str:
    if not sort:
        return "rowid"
    direction = "DESC" if sort.startswith("-") else "ASC"
    return f"{_COLUMNS[sort.removeprefix('-')]} {direction}, rowid {direction}"


def _inside(reader: FolderReader, query: Query, where: str, parameters: tuple[object, ...], order: str) -> EpisodePage:
    """Payloads are searched as bytes first and opened only where the bytes are in them."""
    wanted = query.search.lower()
    needle = wanted.encode()
    # Field names and numbers are bytes of a payload too, so what the bytes hold is looked at once more as words.
    ascii_only = wanted.isascii()
    found: list[str] = []
    read = 0
    sql = f"SELECT id, payload, {_NAMED} FROM trajectories WHERE payload IS NOT NULL AND {where} ORDER BY {order}"
    candidates = reader.query(f"{sql} LIMIT {SCANNED + 1}", parameters)
    cut = len(candidates) > SCANNED
    for name, place, told in candidates[:SCANNED]:
        if read > SCANNED_BYTES or len(found) >= FOUND:
            cut = True
            break
        if wanted in told.lower():
            found.append(name)
            continue
        try:
            record = read_record(reader.folder / PAYLOADS, place)
            read += len(record)
            maybe = not ascii_only or needle in record.lower()
            if maybe and any(wanted in text.lower() for text in _words(decode(record))):
                found.append(name)
        except (StoreError, InvalidDataError):
            continue  # A damaged payload cannot be searched; opening the episode says what is wrong.
    shown = found[query.offset : query.offset + query.limit]
    rows = {row.id: row for row in reader.rows(f"id IN ({', '.join('?' * len(shown))})", tuple(shown))}
    return EpisodePage(len(found), query.offset, [rows[name] for name in shown], cut)


def _words(trajectory: Trajectory) -> list[str]:
    """Everything that was said in an episode."""
    final = trajectory.final.messages if trajectory.final else ()
    found = [_said(message) for message in final] + [trajectory.given]
    for step in trajectory.steps:
        found += [_said(message) for message in step.observation.messages]
        found += [step.action.text, step.action.reasoning, step.error, step.told]
        found += [f"{c.name} {msgspec.json.encode(c.arguments).decode()}" for c in step.action.tool_calls]
    return found


def _said(message: Message) -> str:
    return f"{message.name} {message.content}" if message.name else message.content
