"""The command line from a recipe to weights, a curve and evaluations, and what the same command does afterwards."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from live_runs import LAMPS, RECIPE, final_weights, make_bench, rows

from agentrl.config import load_config
from agentrl.evaluation.harness import Evaluation
from agentrl.evaluation.result import load_result
from agentrl.store.records import read_trajectories
from agentrl.training.metrics import read_metrics

pytestmark = pytest.mark.slow

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.toml"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of four batches, and what the command said."""
    bench = make_bench(tmp_path_factory.mktemp("finished"))
    return bench, bench.train()


def files(folder):
    """Everything that a run leaves for a person, by content; sqlite and its lock are the ledger's own business."""
    kept = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith("ledger.")]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in kept}


def test_a_run_leaves_config_metrics_weights_curve_and_evaluations(finished):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    bench, ended = finished
    assert ended.code == 0, ended.err
    run = bench.run_folder
    assert load_config(run / "config.toml") == load_config(bench.folder / "recipe.toml")
    metrics = read_metrics(run / "metrics.jsonl")
    assert [line["batch"] for line in metrics] == [1, 2, 3, 4]
    assert all(0 <= line["success"] <= 1 and line["trajectories"] == 8 for line in metrics)
    assert all(line["mismatch"] < 1e-5 for line in metrics if line["updated"])
    assert any(line["updated"] for line in metrics)
    assert [p.name for p in sorted((run / "checkpoints").iterdir())] == ["batch-000002", "batch-000004"]
    newest = run / "checkpoints" / "batch-000004" / "model"
    model = AutoModelForCausalLM.from_pretrained(newest)
    assert torch.isfinite(
        model(**AutoTokenizer.from_pretrained(newest)("switch on red", return_tensors="pt")).logits
    ).all()
    loaded = model.state_dict()
    assert all((loaded[name].numpy() == tensor).all() for name, tensor in final_weights(run).items())
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")
    evaluations = [Evaluation.load(path) for path in sorted((run / "evaluations").glob("*.json"))]
    assert {e.temperature for e in evaluations} == {0.0, 1.0} and len(evaluations) == 4
    assert all(len(e.attempts) == 6 and e.environment == "lamps" for e in evaluations)


def test_the_run_says_what_it_did(finished):
    bench, ended = finished
    said = ended.out
    shown = re.findall(r"^(before|after) +(sampled T=1|greedy) +success (\d+\.\d)% \[", said, re.MULTILINE)
    assert [when + " " + how for when, how, _ in shown] == [
        "before sampled T=1",
        "before greedy",
        "after sampled T=1",
        "after greedy",
    ]
    told = json.loads((bench.run_folder / "warm_start" / "report.json").read_text())
    assert f"warm-up  {told['demonstrations']} demonstrations" in said
    assert told["last_loss"] < 0.7 * told["first_loss"]
    assert len(re.findall(r"^paired ", said, re.MULTILINE)) == 2
    assert "batch 4/4" in said and "Traceback" not in ended.err


def test_every_trajectory_in_the_ledger_can_be_read_back(finished):
    bench, _ = finished
    stored = {t.id: t for t in read_trajectories(bench.run_folder / "payloads.bin")}
    trained = rows(bench.run_folder, "SELECT id, batch, reward FROM trajectories WHERE state = 'trained'")
    assert len(trained) == 4 * 8
    assert all(stored[name].reward == reward for name, _, reward in trained)
    assert sorted({batch for _, batch, _ in trained}) == [1, 2, 3, 4]


def test_the_same_command_again_changes_nothing_and_more_batches_go_on(finished):
    bench, _ = finished
    before = files(bench.run_folder)
    again = bench.train()
    assert again.code == 0, again.err
    assert "complete" in again.out and "batch 4/4" not in again.out
    assert files(bench.run_folder) == before
    longer = bench.train("training.batches=5", "report.trackers=[]")
    assert longer.code == 0, longer.err
    assert "goes on at batch 4 of 5" in longer.out
    assert [line["batch"] for line in read_metrics(bench.run_folder / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    assert load_config(bench.run_folder / "config.toml").training.batches == 5
    assert len(rows(bench.run_folder, "SELECT id FROM trajectories WHERE state = 'trained'")) == 5 * 8


def test_eval_of_a_run_says_what_its_training_said_and_of_another_folder_more(finished):
    """After four batches or five, whichever test came first: the newest weights are what is played."""
    bench, _ = finished
    told = {}
    for temperature in (0.0, 1.0):
        path = max((bench.run_folder / "evaluations").glob(f"*-temperature-{temperature:g}.json"))
        told[temperature] = Evaluation.load(path)
    for temperature, after in told.items():
        place = bench.folder / f"eval-{temperature:g}"
        words = (str(bench.run_folder), "--temperature", str(temperature), "--seed", "3", "--out", str(place))
        ended = bench.run("eval", *words, "--plugin", str(bench.plugin))
        assert ended.code == 0, ended.err
        result = load_result(place)
        assert [(a.task, a.reward, a.tokens) for a in result.attempts] == [
            (a.task, a.reward, a.tokens) for a in after.attempts
        ]
        assert result.manifest.identity["kind"] == "run" and result.manifest.conditions.max_tokens == 8
        assert f"score    {after.success().percent()} of 6 tasks" in ended.out
        assert result.null is not None and result.null.score.value == 0.0
    blank = bench.run_folder / "warm_start" / "blank"
    words = (str(bench.folder / "recipe.toml"), "-m", str(blank), "--max-tokens", "8", "--plugin", str(bench.plugin))
    ended = bench.run("eval", *words)
    assert ended.code == 0, ended.err
    untrained = load_result(bench.folder / "evals" / "recipe-blank")
    assert untrained.manifest.hash == result.manifest.hash and untrained.manifest.identity["kind"] == "model"
    assert untrained.faults() == 0


def test_an_evaluation_that_is_asked_for_later_does_not_pass_for_one_of_the_start(finished):
    """Weights of the start are gone by then: a new temperature has an 'after' and no 'before'."""
    bench, _ = finished
    done = load_config(bench.run_folder / "config.toml").training.batches
    later = bench.train(f"training.batches={done}", "evaluation.temperatures=[0.5]")
    assert later.code == 0, later.err
    assert "after    sampled T=0.5" in later.out and "before   sampled T=0.5" not in later.out
    assert not (bench.run_folder / "evaluations" / "update-000000-temperature-0.5.json").exists()


def test_a_dry_run_says_what_would_run_and_writes_nothing(tmp_path):
    bench = make_bench(tmp_path / "bench")
    ended = bench.run(*bench.words(), "--dry-run")
    assert ended.code == 0, ended.err
    assert "would train  lamps with gigpo on the engine transformers" in ended.out
    assert "episodes     32 (4 batches x 2 tasks x 4), 4 updates" in ended.out
    assert "evaluation   6 tasks of 'test', temperatures 1, 0" in ended.out
    assert re.search(r"memory       about \d+\.\d of \d+\.\d GiB of .*: fits", ended.out)
    assert not bench.run_folder.exists()
    huge = bench.run(*bench.words("rollout.concurrency=100000", "rollout.max_context=100000"), "--dry-run")
    assert huge.code == 0 and "does NOT fit" in huge.out


def test_sft_makes_the_weights_that_train_goes_on_from(tmp_path):
    bench = make_bench(tmp_path / "bench")
    warmed = bench.run(*bench.words(verb="sft"))
    assert warmed.code == 0, warmed.err
    weights = bench.run_folder / "warm_start" / "model" / "model.safetensors"
    assert f"saved    {weights.parent}" in warmed.out
    made = weights.read_bytes()
    trained = bench.train("training.batches=1", "evaluation.tasks=0")
    assert trained.code == 0, trained.err
    assert "warm-up" not in trained.out and weights.read_bytes() == made
    bare = make_bench(tmp_path / "bare", RECIPE.replace("[warm_start]", "[x]").split("[x]")[0])
    refused = bare.run(*bare.words(verb="sft"))
    assert refused.code == 2 and "has no [warm_start]" in refused.err


def test_the_quickstart_world_trains_with_a_window_of_the_last_steps(tmp_path):
    """The recipe of the README, shrunk, with prompts that are rewritten at every step."""
    bench = make_bench(tmp_path / "bench", QUICKSTART.read_text(), LAMPS)
    small = [
        "environment.size=3",
        "environment.horizon=6",
        "model.layers=1",
        "warm_start.demonstrations=40",
        "training.batches=2",
        "rollout.tasks_per_batch=2",
        "rollout.group_size=4",
        "evaluation.tasks=4",
        'rollout.context={name = "window", size = 2}',
    ]
    ended = bench.train(*small)
    assert ended.code == 0, ended.err
    played = list(read_trajectories(bench.run_folder / "payloads.bin"))
    longest = max(played, key=lambda t: len(t.steps))
    assert len(longest.steps) > 3
    rewritten = [step.context is None for step in longest.steps]
    # Two steps fit the window; from the third decision on the prompt is written anew.
    assert rewritten == [True, False, False, *[True] * (len(rewritten) - 3)]
    assert longest.forks == sum(rewritten[1:])
    assert [line["batch"] for line in read_metrics(bench.run_folder / "metrics.jsonl")] == [1, 2]


def test_a_tracker_plugin_gets_every_batch(tmp_path):
    pytest.importorskip("tensorboard")
    agentrl_trackers = pytest.importorskip("agentrl_trackers", reason="plugins/trackers is not installed")
    assert agentrl_trackers
    bench = make_bench(tmp_path / "bench")
    ended = bench.train('report.trackers=["tensorboard"]', "training.batches=2", "evaluation.tasks=0")
    assert ended.code == 0, ended.err
    assert "tracker  " not in ended.out
    assert [p for p in bench.run_folder.rglob("*tfevents*") if p.stat().st_size > 500]
