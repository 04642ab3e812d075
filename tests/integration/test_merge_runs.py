"""Two runs from one start, merged by the command line into a model that plays."""

import json

import pytest
from live_runs import final_weights, make_bench
from safetensors.numpy import load_file

pytestmark = pytest.mark.slow


def test_two_runs_merge_into_a_model_that_another_run_starts_from(tmp_path):
    bench = make_bench(tmp_path)
    first, second = tmp_path / "first", tmp_path / "second"
    assert bench.train("training.batches=2", "evaluation.tasks=0", run_folder=first).code == 0
    base = first / "warm_start" / "model"
    # The second starts where the first did; its tasks and samples are its own.
    begun = bench.folder / "second.toml"
    recipe = (bench.folder / "recipe.toml").read_text()
    head, _, tail = recipe.partition("[model]")
    begun.write_text(f'{head}[model]\npath = "{base}"\n[rollout]{tail.partition("[rollout]")[2]}')
    words = ["train", str(begun), "seed=4", "training.batches=2", "evaluation.tasks=0"]
    ended = bench.run(*words, "--plugin", str(bench.plugin), "--run-folder", str(second))
    assert ended.code == 0, ended.err
    out = tmp_path / "merged"
    ended = bench.run("models", "merge", str(out), str(first), str(second), "--base", str(base))
    assert ended.code == 0, ended.err
    assert "merged 2 models by ram" in ended.out
    shares = json.loads((out / "merge.json").read_text())["models"]
    assert all(share["changed"] > 0 for share in shares)
    origin, merged = load_file(base / "model.safetensors"), load_file(out / "model.safetensors")
    ones, others = final_weights(first), final_weights(second)
    alone = shared = 0
    for name, start in origin.items():
        one, other, change = ones[name] - start, others[name] - start, merged[name] - start
        by_one, by_other = abs(one) > 1e-5, abs(other) > 1e-5
        only = by_one & ~by_other
        assert abs(change - one)[only].max(initial=0) < 1e-6
        assert abs(change - (one + other) / 2)[by_one & by_other].max(initial=0) < 1e-6
        assert abs(change)[~by_one & ~by_other].max(initial=0) == 0
        alone, shared = alone + int(only.sum()), shared + int((by_one & by_other).sum())
    assert shared > 0 and shared == shares[0]["shared"] and alone == shares[0]["unique"]
    third = bench.run(
        *words[:1], str(begun), f"model.path={out}", "training.batches=1", "evaluation.tasks=0",
        "--plugin", str(bench.plugin), "--run-folder", str(tmp_path / "third"),
    )  # fmt: skip
    assert third.code == 0, third.err
