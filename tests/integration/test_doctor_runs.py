"""`agentrl doctor RUN` on a real run: while it lives, after it was killed, and when it is done."""

import json
import shlex

import pytest
from live_runs import make_bench, rows

pytestmark = pytest.mark.slow


def test_a_run_is_told_while_it_lives_when_it_was_killed_and_when_it_is_done(tmp_path):
    bench = make_bench(tmp_path / "bench")
    other = make_bench(tmp_path / "doctor")
    running = bench.start(*bench.words("training.batches=2000", "evaluation.tasks=0"))

    def trains():
        """A checkpoint is made, and a beat has come since the engine is there."""
        pulse = bench.run_folder / "pulse.json"
        beat = json.loads(pulse.read_bytes()) if pulse.exists() else {}
        return bool(rows(bench.run_folder, "SELECT 1 FROM head")) and beat.get("engine") is not None

    assert running.wait_until(trains)
    seen = other.run("doctor", str(bench.run_folder), "--json")
    assert seen.code == 0, seen.err
    told = json.loads(seen.out)["run"]
    assert told["state"] == "running" and told["batches"] == 2000 and told["pulse"]["episodes"] >= 0
    assert told["pulse"]["engine"]["ok"] and told["command"] == ""
    running.kill()
    dead = other.run("doctor", str(bench.run_folder))
    assert dead.code == 1 and "state    killed: process" in dead.out and "Traceback" not in dead.err
    (line,) = [line for line in dead.out.splitlines() if line.startswith("go on    ")]
    words = shlex.split(line.removeprefix("go on    agentrl "))
    batch = json.loads((bench.run_folder / "metrics.jsonl").read_text().splitlines()[-1])["batch"]
    again = other.run(*words, "--plugin", str(bench.plugin), f"training.batches={batch + 1}")
    assert again.code == 0, again.err
    assert "goes on at batch" in again.out
    done = other.run("doctor", str(bench.run_folder))
    assert done.code == 0 and "state    complete: everything that was asked for is done" in done.out
    assert not (bench.run_folder / "pulse.json").exists()
