"""From nothing to a trained agent in an environment of one's own: new, check, train."""

import pytest
from live_runs import make_bench

from agentrl.store.records import read_trajectories
from agentrl.training.metrics import read_metrics

pytestmark = pytest.mark.slow

RECIPE = """
[environment]
name = "demo"
[model]
name = "tiny"
hidden = 64
layers = 1
[warm_start]
demonstrations = 60
batch = 4
learning_rate = 1e-2
[rollout]
tasks_per_batch = 3
group_size = 4
max_tokens = 12
max_context = 192
[method]
name = "grpo"
[training]
batches = 3
learning_rate = 1e-3
threads = 1
[evaluation]
tasks = 3
"""


def test_new_env_then_check_then_train(tmp_path):
    bench = make_bench(tmp_path / "desk", RECIPE)
    wrote = bench.run("new", "env", "demo")
    assert wrote.code == 0, wrote.err
    plugin = ("--plugin", "demo/demo.py")
    checked = bench.run("env", "check", "demo", *plugin)
    assert checked.code == 0, checked.out + checked.err
    assert "Demo is sound" in checked.out
    trained = bench.run("train", "recipe.toml", *plugin, "--run-folder", "run")
    assert trained.code == 0, trained.err
    assert [line["batch"] for line in read_metrics(bench.run_folder / "metrics.jsonl")] == [1, 2, 3]
    played = list(read_trajectories(bench.run_folder / "payloads.bin"))
    assert len(played) == 3 * 3 * 4
    assert {t.task.env for t in played} == {"demo"} and {t.task.split for t in played} == {"train"}
    opened = [s for t in played for s in t.steps if s.action.tool_calls and not s.error]
    assert opened and all(s.action.tool_calls[0].name == "open_box" for s in opened)
    assert "after    greedy" in trained.out


def test_a_recipe_can_name_its_plugin_itself(tmp_path):
    bench = make_bench(tmp_path / "desk", 'plugins = ["demo/demo.py"]\n' + RECIPE)
    assert bench.run("new", "env", "demo").code == 0
    dry = bench.run("train", "recipe.toml", "--run-folder", "run", "--dry-run")
    assert dry.code == 0, dry.err
    assert "would train  demo with grpo" in dry.out
