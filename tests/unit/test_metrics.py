"""metrics.jsonl: whole lines survive a kill, and a resumed run has each batch once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.errors import StoreError
from agentrl.training.metrics import MetricsLog, read_metrics
from agentrl.training.report import ProgressReport


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write(1, {"reward": 0.25, "loss": float("nan")})
        log.write(2, {"reward": 0.5})
    first, second = read_metrics(path)
    assert (first["batch"], first["reward"], first["loss"]) == (1, 0.25, None)
    assert second["time"] >= first["time"] > 1e9


def test_a_line_is_on_disk_before_the_next_is_written(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(1, {"reward": 0.25})
    assert len(read_metrics(log.path)) == 1
    log.close()


def test_lines_after_the_resumed_batch_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        for batch in range(1, 6):
            log.write(batch, {"reward": batch / 10})
    with MetricsLog(path, resumed_at=3) as log:
        log.write(4, {"reward": 0.9})
    assert [(r["batch"], r["reward"]) for r in read_metrics(path)] == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.9)]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]
    with MetricsLog(path, resumed_at=-1):
        assert read_metrics(path) == []


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 400))
def test_a_file_cut_anywhere_keeps_its_whole_lines(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "metrics.jsonl"
    with MetricsLog(path) as log:
        for batch in range(1, 6):
            log.write(batch, {"reward": 0.5, "success": 0.25})
    whole = path.read_bytes()
    kept = whole[:cut]
    path.write_bytes(kept)
    count = kept.count(b"\n")
    assert [r["batch"] for r in read_metrics(path)] == list(range(1, count + 1))
    with MetricsLog(path) as log:
        log.write(99, {})
    assert [r["batch"] for r in read_metrics(path)] == [*range(1, count + 1), 99]


def test_a_killed_writer_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    code = (
        "from pathlib import Path; from agentrl.training.metrics import MetricsLog\n"
        f"log = MetricsLog(Path({str(path)!r}))\n"
        "for batch in range(10**9):\n"
        "    log.write(batch, {'reward': 0.5})\n"
        "    print(batch, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    last = 0
    for line in child.stdout:
        last = int(line)
        if last >= 200:
            break
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    batches = [record["batch"] for record in read_metrics(path)]
    assert batches == list(range(len(batches)))
    assert len(batches) > last


def test_a_torn_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"batch": 1}\n{"bat\n{"batch": 3}\n')
    with pytest.raises(StoreError, match=r"metrics.jsonl:2 is not a metrics line: b'\{\"bat'"):
        read_metrics(path)


def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written: .* choose another --run-folder"):
        MetricsLog(tmp_path / "file" / "metrics.jsonl")


def test_a_report_becomes_flat_numbers_without_what_was_not_measured() -> None:
    report = ProgressReport(update=3, batch=2, batches=9, reward=0.5, reward_interval=(0.4, 0.6), success=0.25)
    metrics = report.metrics()
    assert (metrics["update"], metrics["reward_low"], metrics["success"]) == (3.0, 0.4, 0.25)
    assert "mismatch" not in metrics
    assert all(type(value) is float for value in metrics.values())
