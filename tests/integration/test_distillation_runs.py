"""Runs that learn from a teacher: the policy itself, told the solution, or one that takes turns over."""

import pytest
from live_runs import make_bench

from agentrl.store.records import read_trajectories
from agentrl.training.metrics import read_metrics
from agentrl.types import Source

pytestmark = pytest.mark.slow


def test_a_run_distils_its_policy_told_the_solution_into_itself(tmp_path):
    bench = make_bench(tmp_path)
    ended = bench.train(
        "method.name=self_distillation", 'method.frame="{hint}"', "training.batches=2", "evaluation.tasks=0"
    )
    assert ended.code == 0, ended.err
    metrics = read_metrics(bench.run_folder / "metrics.jsonl")
    assert all(line["updated"] and line["update_gradient_norm"] > 0 for line in metrics)
    # Nothing of a hint is in what the policy was given.
    for trajectory in read_trajectories(bench.run_folder / "payloads.bin"):
        assert [step.context is None for step in trajectory.steps] == [True] + [False] * (len(trajectory.steps) - 1)
        assert trajectory.steps[0].observation.messages[-1].content.startswith("switch on")


def test_a_teacher_takes_turns_over(tmp_path):
    bench = make_bench(tmp_path)
    assert bench.run(*bench.words(verb="sft")).code == 0
    teacher = bench.run_folder / "warm_start" / "model"
    words = (
        "method.name=dagger",
        "method.beta=0.6",
        "method.decay=0.9",
        f"model.teacher={teacher}",
        "evaluation.tasks=0",
    )
    ended = bench.train(*words, "training.batches=3", run_folder=tmp_path / "pupil")
    assert ended.code == 0, ended.err
    metrics = read_metrics(tmp_path / "pupil" / "metrics.jsonl")
    assert all(line["updated"] for line in metrics)
    assert 0 < metrics[0]["taught"] < 1
    sources = {s.source for t in read_trajectories(tmp_path / "pupil" / "payloads.bin") for s in t.steps}
    assert sources == {Source.POLICY, Source.TEACHER}
    # A sampler that disagrees with the learner on its own tokens would show.
    assert all(line.get("update_mismatch", 0.0) < 1e-4 for line in metrics)


def test_a_method_with_a_teacher_names_what_is_missing(tmp_path):
    bench = make_bench(tmp_path)
    ended = bench.train("method.name=dagger", "training.batches=1", "evaluation.tasks=0")
    assert ended.code != 0
    assert "set [model] teacher" in ended.err
