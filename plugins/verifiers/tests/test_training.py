"""A run of agentrl whose every episode is a rollout of verifiers: what their task rewards is what moves the policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from agentrl_verifiers.plugin import agentrl_environments
from live_runs import final_weights, make_bench, rows
from safetensors.numpy import load_file

from agentrl.store.reader import FolderReader
from agentrl.tiny import make_tiny
from agentrl.training.metrics import read_metrics

OWN = agentrl_environments()["verifiers_rollouts"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not OWN.ready, reason="verifiers is not installed (agentrl env install verifiers)"),
]
WORDS = 'Guess a number from 1 to 9. higher lower 2 3 4 5 6 7 8 look "thing"'
"The taskset's, and the call by which a run tries out a renderer."
RECIPE = f"""
seed = 3
[environment]
name = "verifiers_rollouts"
taskset = "guess_taskset"
path = "{Path(__file__).parent}"
[model]
path = "model"
[rollout]
tasks_per_batch = 2
group_size = 12
max_tokens = 1
max_context = 64
environments = 1
[method]
name = "grpo"
[training]
batches = 2
learning_rate = 3e-3
threads = 1
[evaluation]
tasks = 1
temperatures = [1.0]
"""


def test_a_run_updates_the_policy_on_their_rewards(tmp_path: Path) -> None:
    """A policy of random words finds the number in some of the rollouts, so that groups differ from the first batch."""
    bench = make_bench(tmp_path, RECIPE)
    make_tiny(tmp_path / "model", [WORDS], hidden=32, layers=1, heads=1, context=64)
    ended = bench.train()
    assert ended.code == 0, ended.err

    lines = read_metrics(bench.run_folder / "metrics.jsonl")
    updates = [line for line in lines if line["updated"]]
    assert updates and all(line["mismatch"] < 1e-5 for line in updates)
    before, after = load_file(tmp_path / "model" / "model.safetensors"), final_weights(bench.run_folder)
    assert any(not np.array_equal(before[name], after[name]) for name in before)

    assert len(rows(bench.run_folder, "SELECT id FROM trajectories WHERE state = 'trained'")) == 48
    with FolderReader(bench.run_folder) as reader:
        played = [reader.trajectory(row.id) for row in reader.rows("state = 'trained'")]
    for trajectory in played:
        assert trajectory.forks == 0 and trajectory.success == (trajectory.reward == 1.0)
        scores = trajectory.steps[-1].scores
        assert trajectory.reward == scores["found"] and len(trajectory.steps) == scores["guesses"]
    assert {trajectory.reward for trajectory in played} == {0.0, 1.0}
