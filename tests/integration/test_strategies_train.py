"""Strategies in whole runs: keydoor with ARPO, the guide's own, every strategy with its method, and refusals."""

import re
from pathlib import Path

import numpy as np
import pytest
from live_runs import LAMPS, RECIPE, final_weights, make_bench, rows

from agentrl.rollout.strategies.rounds import sampled
from agentrl.store.records import read_trajectories
from agentrl.training.metrics import read_metrics

pytestmark = pytest.mark.slow

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "rollout-strategies.md"
KEYDOOR = """
seed = 1
[environment]
name = "keydoor"
size = 3
horizon = 16
skill = 0.9
[model]
name = "tiny"
hidden = 32
layers = 1
heads = 1
[warm_start]
demonstrations = 500
batch = 16
learning_rate = 1e-2
[rollout]
tasks_per_batch = 4
group_size = 8
max_tokens = 8
max_context = 256
strategy = { name = "entropy_branching", initial = 4 }
[method]
name = "arpo"
[training]
batches = 3
learning_rate = 3e-3
threads = 1
[evaluation]
tasks = 0
"""


def stored(run):
    """The trajectories of a run by group, in the order of their members."""
    groups = {}
    for trajectory in sorted(read_trajectories(run / "payloads.bin"), key=lambda t: t.id):
        groups.setdefault(trajectory.group, []).append(trajectory)
    return groups


def test_keydoor_trains_with_arpo_on_groups_that_branch_where_the_policy_is_unsure(tmp_path):
    bench = make_bench(tmp_path, KEYDOOR)
    ended = bench.train()
    assert ended.code == 0, ended.err
    run = bench.run_folder
    metrics = read_metrics(run / "metrics.jsonl")
    assert [line["batch"] for line in metrics] == [1, 2, 3]
    assert all(line["branches"] == line["branches_restored"] > 0 for line in metrics)
    assert all(line["trajectories"] == 32 and line["update_sharing"] > 1.0 for line in metrics if line["updated"])
    assert any(line["updated"] for line in metrics)
    # Shared tokens have the version and the log-probability with which they were sampled.
    assert all(line["mismatch"] < 1e-4 for line in metrics if line["updated"])
    groups = stored(run)
    costs = [sampled(members) for members in groups.values()]
    assert len(costs) == 12
    assert np.mean(costs) == pytest.approx(np.mean([line["sampled_tokens_per_group"] for line in metrics]))
    for members in groups.values():
        steps = {}
        for trajectory in members:
            assert all(0 < step.scores["entropy"] <= np.log(11) for step in trajectory.steps)
            for step in trajectory.steps:
                kept = steps.setdefault(step.id, step)
                assert np.array_equal(kept.tokens, step.tokens) and np.array_equal(kept.logprobs, step.logprobs)
    assert all(np.isfinite(tensor).all() for tensor in final_weights(run).values())


@pytest.mark.parametrize(
    ("strategy", "method"),
    [
        ("random_branching", "branch"),
        ("tree", "branch"),
        ("retry_from_step", "r3l"),
        ("recovery", "fission"),
        ("fission", "fission"),
        ("guided", "grpo"),
        ("expert", "bepa"),
    ],
)
def test_every_strategy_trains_with_its_method_by_replay(tmp_path, strategy, method):
    bench = make_bench(tmp_path)
    ended = bench.train(
        f"rollout.strategy.name={strategy}", f"method.name={method}", "evaluation.tasks=0", "training.batches=2"
    )
    assert ended.code == 0, ended.err
    metrics = read_metrics(bench.run_folder / "metrics.jsonl")
    assert len(metrics) == 2 and all(line["trajectories"] == 8 for line in metrics)
    forks = [line.get("branches", 0.0) for line in metrics]
    assert [line.get("branches_replayed", 0.0) for line in metrics] == forks
    assert sum(forks) > 0 or strategy in ("recovery", "fission", "guided", "expert")
    left = rows(bench.run_folder, "SELECT count(*) FROM trajectories WHERE state = 'trained'")
    assert left == [(16,)]


def test_the_strategy_of_the_guide_trains(tmp_path):
    plugin = re.search(r"```python file=second_chance.py\n(.*?)```", GUIDE.read_text(), re.DOTALL).group(1)
    bench = make_bench(tmp_path)
    (tmp_path / "second_chance.py").write_text(plugin)
    words = [
        "rollout.strategy.name=second_chance",
        "rollout.strategy.advice=switch on red",
        "training.batches=2",
        "evaluation.tasks=0",
    ]
    ended = bench.run(*bench.words(*words), "--plugin", str(tmp_path / "second_chance.py"))
    assert ended.code == 0, ended.err
    guided = [t for members in stored(bench.run_folder).values() for t in members if t.given]
    assert guided and all(t.source == "guided" and len(t.own[0].seen) > len(t.own[0].prompt) for t in guided)
    metrics = read_metrics(bench.run_folder / "metrics.jsonl")
    assert all(line["mismatch"] < 1e-4 for line in metrics if line["updated"] and "mismatch" in line)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["method.name=arpo"], "the method 'arpo' gives credit to episodes that were forked"),
        (
            ["rollout.strategy.name=entropy_branching", "rollout.strategy.initial=9"],
            "rollout.group_size is 4; the strategy 'entropy_branching' with these options needs groups of at least 9",
        ),
        (["rollout.strategy.name=tree", "rollout.strategy.depth=3"], "has no key 'depth'"),
        (["rollout.strategy.name=tree", "rollout.strategy.width=1"], "roots is 1 and width 1"),
        (["rollout.strategy.name=entropie_branching"], "Did you mean 'entropy_branching'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_played(tmp_path, overrides, said):
    bench = make_bench(tmp_path)
    ended = bench.train(*overrides)
    assert ended.code == 2 and said in " ".join(ended.err.split()), ended.err
    assert "Traceback" not in ended.err and not rows(bench.run_folder, "SELECT id FROM groups")


def test_a_world_that_does_not_repeat_itself_stops_a_run_that_forks_with_the_step_and_the_way_out(tmp_path):
    moody = LAMPS.replace('return f"{color} is on"', 'return f"{color} is on {random.random()}"')
    assert moody != LAMPS
    bench = make_bench(tmp_path, RECIPE, moody)
    ended = bench.train("rollout.strategy.name=random_branching", "rollout.strategy.chance=1.0", "training.batches=40")
    assert ended.code == 1, ended.out + ended.err
    assert "the environment is not deterministic at step 1" in ended.err and "snapshot" in ended.err
    assert "Traceback" not in ended.err
