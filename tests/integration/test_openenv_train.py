"""Training through an OpenEnv server: `agentrl serve-env` on one side, `agentrl train` on the other."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from live_runs import make_bench

from agentrl.store.records import read_trajectories
from agentrl.training.metrics import read_metrics

pytest.importorskip("openenv", reason="openenv-core is not installed (pip install 'agentrl-openenv[openenv]')")
pytestmark = pytest.mark.slow

RECIPE = """
[environment]
name = "openenv"
url = "{url}"
prompt = "Find the key and open the door."
[model]
name = "tiny"
hidden = 32
layers = 1
heads = 1
[rollout]
tasks_per_batch = 2
group_size = 2
max_tokens = 12
max_context = 512
max_steps = 3
[method]
name = "grpo"
[training]
batches = 1
threads = 1
[evaluation]
tasks = 2
"""


@pytest.fixture
def url() -> Iterator[str]:
    """Of keydoor, served by the command."""
    command = [sys.executable, "-m", "agentrl.cli.main", "serve-env", "keydoor", "size=3", "horizon=8"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        first = server.stdout.readline()
        found = re.match(r"serving  keydoor at (http://127\.0\.0\.1:\d+)  \(OpenEnv; 16 sessions; Ctrl-C", first)
        assert found is not None, first
        yield found[1]
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0


def test_two_groups_are_played_over_the_wire_and_trained_on(tmp_path, url):
    bench = make_bench(tmp_path / "desk", RECIPE.format(url=url))
    trained = bench.run("train", "recipe.toml", "--run-folder", "run")
    assert trained.code == 0, trained.out + trained.err
    assert [line["batch"] for line in read_metrics(bench.run_folder / "metrics.jsonl")] == [1]
    played = list(read_trajectories(bench.run_folder / "payloads.bin"))
    assert len(played) == 4 and len({t.group for t in played}) == 2
    assert {t.status for t in played} == {"truncated"} and {t.task.env for t in played} == {"openenv"}
    for trajectory in played:
        shown = trajectory.steps[0].observation.messages[-1].content
        assert shown.startswith("Find the key and open the door.\n\n") and "key" in shown.splitlines()[-1]
        assert all(step.anchor for step in trajectory.steps)
