"""The ledger: what is acknowledged is kept, what is trained is never given again."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from fakes_rollout import same, trajectory

from agentrl.errors import StoreError
from agentrl.store.ledger import Ledger
from agentrl.types import Status, Task, Trajectory

TASK = Task("t", "env", 9, {"list": [1, None, {"x": "ü"}], "f": 0.1}, "train", ("a", "b"))


def issue(ledger: Ledger, ordinal: int, size: int = 2, name: str | None = None) -> list[str]:
    name = name or f"g{ordinal}"
    members = [f"{name}-{member}" for member in range(size)]
    ledger.issue(ordinal, name, TASK, members)
    return members


def ended(name: str, version: int = 0, status: Status = Status.OK) -> Trajectory:
    return trajectory(name, versions=(version, version), status=status)


def groups(ledger: Ledger, version: int = 0, staleness: int = 0) -> dict[str, list[int]]:
    return {group.id: sorted(group.recorded) for group in ledger.resume(version, staleness).groups}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_done_trajectories_come_back_equal_and_the_others_are_played_again(folder: Path) -> None:
    with Ledger(folder) as ledger:
        issue(ledger, 0, 3)
        ledger.finish(ended("g0-1"), ended("g0-2", status=Status.ENVIRONMENT_ERROR))
        assert ledger.counts() == {"issued": 1, "done": 1, "failed": 1}
    with Ledger(folder) as ledger:
        (group,) = ledger.resume(0, 0).groups
        assert (group.id, group.ordinal, group.size, group.task) == ("g0", 0, 3, TASK)
        assert list(group.recorded) == [1] and same(group.recorded[1], ended("g0-1"))
        assert ledger.counts() == {"issued": 2, "done": 1}


def test_batched_rows_after_the_head_go_back_and_trained_rows_never_do(folder: Path) -> None:
    with Ledger(folder) as ledger:
        for ordinal in range(3):
            ledger.finish(*map(ended, issue(ledger, ordinal)))
        ledger.batched(1, ["g0-0", "g0-1"])
        ledger.set_head(1, "checkpoints/1", {"cursor": 3}, ordinal=3)
        ledger.batched(2, ["g1-0", "g1-1"])
    with Ledger(folder) as ledger:
        state = ledger.resume(0, 0)
        assert state.head is not None and state.head.checkpoint == "checkpoints/1"
        assert (state.update, state.ordinal, state.head.sampler) == (1, 3, {"cursor": 3})
        assert [(group.id, sorted(group.recorded)) for group in state.groups] == [("g1", [0, 1]), ("g2", [0, 1])]
        assert ledger.counts() == {"trained": 2, "done": 4}


def test_a_trajectory_cannot_be_in_two_batches(folder: Path) -> None:
    with Ledger(folder) as ledger:
        ledger.finish(*map(ended, issue(ledger, 0)))
        ledger.batched(1, ["g0-0"])
        with pytest.raises(StoreError, match="1 of 2 trajectories of batch 2"):
            ledger.batched(2, ["g0-0", "g0-1"])
        assert ledger.counts() == {"batched": 1, "done": 1}


def test_what_is_too_old_or_from_lost_weights_is_played_again(folder: Path) -> None:
    with Ledger(folder) as ledger:
        for version in range(6):
            ledger.finish(*(ended(name, version) for name in issue(ledger, version)))
        assert groups(ledger, version=4, staleness=2) == {
            "g0": [],
            "g1": [],
            "g2": [0, 1],
            "g3": [0, 1],
            "g4": [0, 1],
            "g5": [],
        }


def test_a_drop_before_the_head_stands_and_one_after_it_is_undone(folder: Path) -> None:
    with Ledger(folder) as ledger:
        for ordinal in range(2):
            ledger.finish(*map(ended, issue(ledger, ordinal)))
            ledger.drop(f"g{ordinal}", "filtered")
        ledger.set_head(0, "c", None, ordinal=1)
        assert groups(ledger) == {"g1": [0, 1]}


def test_a_stale_group_is_issued_again_in_one_transaction(folder: Path) -> None:
    with Ledger(folder) as ledger:
        ledger.finish(*map(ended, issue(ledger, 0)))
        ledger.set_head(1, "c", None, ordinal=1)
        ledger.reissue("g0", "g0r1", ["g0r1-0", "g0r1-1"])
        assert groups(ledger) == {"g0r1": []}
        ledger.finish(ended("g0r1-1"))
        assert groups(ledger) == {"g0r1": [1]}


def test_a_reissue_after_the_head_is_rewound_with_its_group(folder: Path) -> None:
    with Ledger(folder) as ledger:
        ledger.finish(*map(ended, issue(ledger, 0)))
        ledger.reissue("g0", "g0r1", ["g0r1-0", "g0r1-1"])
        assert groups(ledger) == {"g0": [0, 1]}


def test_another_task_in_the_same_place_supersedes(folder: Path) -> None:
    with Ledger(folder) as ledger:
        ledger.finish(*map(ended, issue(ledger, 0)))
        ledger.issue(0, "g0", Task("other", "env"), ["g0-0", "g0-1"])
        (group,) = ledger.resume(0, 0).groups
        assert group.task.id == "other" and group.recorded == {}


def test_more_members_of_a_group_leave_those_that_are_there_as_they_are(folder: Path) -> None:
    with Ledger(folder) as ledger:
        ledger.extend([(0, "g0", TASK, ["g0-0", "g0-1"])])
        ledger.finish(ended("g0-0"))
        ledger.extend([(0, "g0", TASK, ["g0-0"]), (1, "g1", TASK, ["g1-0"])])
        ledger.extend([(0, "g0", TASK, ["g0-0", "g0-1", "g0-2"])])
        assert ledger.counts() == {"done": 1, "issued": 3}
        assert [(g.id, g.size, sorted(g.recorded)) for g in ledger.resume(0, 0).groups] == [
            ("g0", 3, [0]),
            ("g1", 1, []),
        ]


def test_a_second_run_in_one_folder_is_told_who_has_it(folder: Path) -> None:
    with Ledger(folder), pytest.raises(StoreError, match=r"in use by another run \(process \d+\)"):
        Ledger(folder)
    Ledger(folder).close()


def test_a_cancelled_trajectory_stays_issued(folder: Path) -> None:
    with Ledger(folder) as ledger:
        issue(ledger, 0)
        with pytest.raises(StoreError, match="stays issued"):
            ledger.finish(ended("g0-0", status=Status.CANCELLED))
        assert ledger.counts() == {"issued": 2}


def test_a_payload_without_its_row_does_no_harm(folder: Path) -> None:
    """The kill came between the payload and the row."""
    with Ledger(folder) as ledger:
        issue(ledger, 0)
        ledger.finish(ended("g0-0"))
        shutil.copy(folder / "payloads.bin", folder.parent / "before")
        size = (folder / "payloads.bin").stat().st_size
    with (folder / "payloads.bin").open("ab") as file:
        file.write((folder.parent / "before").read_bytes()[-50:])
    with Ledger(folder) as ledger:
        assert ledger.torn == 50 and (folder / "payloads.bin").stat().st_size == size
        assert groups(ledger) == {"g0": [0]}


def test_a_lost_payload_file_is_an_error_not_an_empty_run(folder: Path) -> None:
    with Ledger(folder) as ledger:
        issue(ledger, 0)
        ledger.finish(ended("g0-0"), ended("g0-1"))
    (folder / "payloads.bin").unlink()
    with pytest.raises(StoreError, match="ledger knows of a record"):
        Ledger(folder)


def test_another_schema_is_refused(folder: Path) -> None:
    Ledger(folder).close()
    database = sqlite3.connect(folder / "ledger.sqlite")
    database.execute("UPDATE meta SET value = '99'")
    database.commit()
    database.close()
    with pytest.raises(StoreError, match="schema 99"):
        Ledger(folder)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be opened"):
        Ledger(tmp_path / "file" / "run")


def test_a_closed_ledger_says_so(folder: Path) -> None:
    ledger = Ledger(folder)
    ledger.close()
    ledger.close()
    with pytest.raises(StoreError, match="is closed"):
        issue(ledger, 0)
