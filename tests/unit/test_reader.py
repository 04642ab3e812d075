"""Reading a folder while it is written: rows without payloads, payloads one at a time, what was trained."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes_rollout import same, trajectory

from agentrl.errors import StoreError
from agentrl.outcomes import Outcome, outcome_of
from agentrl.store.ledger import Ledger
from agentrl.store.reader import FolderReader
from agentrl.store.records import Trained, encode
from agentrl.types import Action, Status, Task, ToolCall, Trajectory

TASK = Task("t", "env")


def episode(name: str, status: Status = Status.OK, success: float = 0.0, **changes: object) -> Trajectory:
    """A trajectory whose last step says `success`."""
    found = trajectory(name, status=status)
    steps = [replace(step, error="") for step in found.steps]
    last = replace(steps[-1], scores={"success": success}, action=Action("done"))
    return replace(found, steps=(*steps[:-1], replace(last, **changes)))  # type: ignore[arg-type]


def trained(name: str, batch: int, size: int = 2) -> Trained:
    values = np.arange(size, dtype=np.float32) + batch
    return Trained(name, batch, values, values + 1, np.full(size, np.nan, np.float32))


def test_a_reader_sees_what_a_living_writer_has_acknowledged(tmp_path: Path) -> None:
    won, lost = episode("g-0", success=1.0), episode("g-1")
    with Ledger(tmp_path) as ledger, FolderReader(tmp_path) as reader:
        ledger.issue(0, "g", TASK, ["g-0", "g-1", "g-2"])
        assert (reader.count(), list(reader.rows())) == (0, [])
        ledger.finish(replace(won, group="g"), replace(lost, group="g"))
        rows = list(reader.rows("success = ?", (1,)))
        assert reader.count() == 2 and [row.id for row in rows] == ["g-0"]
        assert (rows[0].group, rows[0].task, rows[0].outcome, rows[0].steps) == ("g", "t", "success", len(won.steps))
        assert rows[0].tokens == sum(len(step.tokens) for step in won.steps)
        assert same(reader.trajectory("g-1"), replace(lost, group="g"))
        group = reader.group("g")
        assert group.task == TASK and [member.id for member in group.trajectories] == ["g-0", "g-1"]
        with pytest.raises(StoreError, match="no episode 'g-2' that has ended"):
            reader.trajectory("g-2")


def test_what_was_trained_comes_back_and_a_repeated_batch_replaces_what_it_said_before(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.keep_trained(1, [trained("a", 1), trained("b", 1)])
        ledger.keep_trained(2, [trained("a", 2)])
        ledger.keep_trained(3, [trained("a", 3)])
        ledger.keep_trained(2, [trained("a", 2, size=3)])
    with FolderReader(tmp_path) as reader:
        kept = reader.trained("a")
        assert [(one.batch, len(one.advantage)) for one in kept] == [(1, 2), (2, 3)]
        np.testing.assert_array_equal(kept[1].coefficient, [3, 4, 5])
        assert np.isnan(kept[1].logprobs).all() and reader.trained("c") == []


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (episode("x", Status.ENVIRONMENT_ERROR), Outcome.ENVIRONMENT),
        (episode("x", Status.CANCELLED), Outcome.INFRASTRUCTURE),
        (episode("x", success=1.0), Outcome.SUCCESS),
        (episode("x", success=1.0, scores={"success": 1.0, "suspected_hack": 1.0}), Outcome.SUSPECTED_HACK),
        (episode("x", Status.TRUNCATED), Outcome.LIMIT),
        (episode("x", action=Action(" ")), Outcome.GAVE_UP),
        (episode("x", action=Action(tool_calls=(ToolCall("go", {}),))), Outcome.WRONG_ANSWER),
        (episode("x", Status.POLICY_ERROR, error="no tool is called 'fly'. Tools: go."), Outcome.UNKNOWN_TOOL),
        (episode("x", Status.POLICY_ERROR, error="the call is not JSON"), Outcome.MALFORMED_CALL),
    ],
)
def test_an_episode_has_one_outcome(found: Trajectory, outcome: Outcome) -> None:
    assert outcome_of(found) is outcome


def test_a_folder_that_is_no_run_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no ledger\.sqlite in it"):
        FolderReader(tmp_path)


def test_threads_that_read_first_at_the_same_time_all_read(tmp_path: Path) -> None:
    """In a fresh process: what is prepared at first use has to be there before any thread asks."""
    record = tmp_path / "record"
    record.write_bytes(encode(trajectory()))
    program = f"""
import sys, threading
from pathlib import Path
from agentrl.store.records import decode
sys.setswitchinterval(1e-6)
record, start, read = Path({str(record)!r}).read_bytes(), threading.Barrier(8), []
def work():
    start.wait()
    read.extend(decode(record).id for _ in range(20))
threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
assert read == ["g-0"] * 160, read
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
