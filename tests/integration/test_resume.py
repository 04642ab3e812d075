"""Runs killed with -9 at many points, and the same command again: the end is that of a run left in peace.

One request at a time and no keys kept make a run exact. Otherwise the shape of a forward pass depends on which requests
share it (the clock) and on which prefixes were computed before (the life of the process), and with the shape the last
bits of a log-probability.
"""

import itertools
import json
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from live_runs import LAMPS, RECIPE, Bench, Running, final_weights, make_bench, rows, same_weights

from agentrl.store.ledger import Ledger
from agentrl.store.records import read_trajectories
from agentrl.training.metrics import read_metrics

pytestmark = pytest.mark.slow

BATCHES = 4
EXACT = ("rollout.concurrency=1", "engine.cache_tokens=0", f"training.batches={BATCHES}", "evaluation.tasks=4")
FREE = EXACT[2:]


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A run left in peace."""
    bench = make_bench(tmp_path_factory.mktemp("calm"))
    ended = bench.train(*EXACT)
    assert ended.code == 0, ended.err
    return bench.run_folder


def in_warm_start(run: Path) -> bool:
    return (run / "warm_start" / "blank").exists()


def in_evaluation(run: Path) -> bool:
    return (run / "evaluations").exists()


def in_collect(run: Path) -> bool:
    """Some of a group are played."""
    return bool(rows(run, "SELECT grp FROM trajectories GROUP BY grp HAVING count(payload) BETWEEN 1 AND 3"))


def in_update(run: Path) -> bool:
    return bool(rows(run, "SELECT id FROM trajectories WHERE state = 'batched' LIMIT 1"))


def in_checkpoint(run: Path) -> bool:
    return bool(list((run / "checkpoints").glob(".batch-*.writing/*")))


def after_checkpoint(run: Path) -> bool:
    return bool(rows(run, "SELECT batch FROM head"))


POINTS = (in_warm_start, in_evaluation, in_collect, in_update, in_checkpoint, after_checkpoint)


def kill_at(bench: Bench, overrides: tuple[str, ...], point, dice: random.Random) -> bool:
    """Start the command and kill it a moment after `point`; False where it ended before that."""
    life = bench.start(*bench.words(*overrides))
    reached = life.wait_until(lambda: point(bench.run_folder))
    if reached:
        time.sleep(dice.choice((0.0, 0.0, 0.01, 0.05)))
    life.kill()
    return reached


def check_complete(run: Path, batches: int = BATCHES) -> None:
    """No task lost, nothing trained twice, one line a batch."""
    assert [line["batch"] for line in read_metrics(run / "metrics.jsonl")] == list(range(1, batches + 1))
    trained = rows(run, "SELECT id, grp, batch FROM trajectories WHERE state = 'trained'")
    assert len(trained) == len({name for name, _, _ in trained}) == batches * 2 * 4
    for _, members in itertools.groupby(sorted(trained, key=lambda row: row[1]), key=lambda row: row[1]):
        assert len({batch for _, _, batch in members}) == 1
    stored = {t.id for t in read_trajectories(run / "payloads.bin")}
    assert {name for name, _, _ in trained} <= stored
    with Ledger(run) as ledger:
        head = ledger.head()
        assert head is not None and head.update == batches
        waiting = {group.ordinal for group in ledger.resume(10**6, 10**6).groups}
    used = {ordinal for (ordinal,) in rows(run, "SELECT ordinal FROM groups WHERE state = 'trained'")}
    assert len(used) == batches * 2
    assert set(range(head.ordinal)) <= used | waiting
    assert not used & waiting


def told(run: Path) -> list[tuple[float, ...]]:
    """What `metrics.jsonl` says of each batch, without what a clock measured."""
    names = ("batch", "update", "reward", "success", "flat_groups", "tokens_per_episode", "steps_per_episode")
    return [tuple(line[name] for name in names) for line in read_metrics(run / "metrics.jsonl")]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.__name__)
def test_a_run_killed_at_this_point_ends_as_if_nothing_had_happened(tmp_path, calm, point):
    bench = make_bench(tmp_path / "bench")
    assert kill_at(bench, EXACT, point, random.Random(point.__name__)), "the run was over before the kill"
    ended = bench.train(*EXACT)
    assert ended.code == 0, ended.err
    check_complete(bench.run_folder)
    assert told(bench.run_folder) == told(calm)
    assert same_weights(bench.run_folder, calm)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_killed_again_and_again_ends_bit_for_bit_as_one_left_in_peace(tmp_path, calm, seed):
    bench, dice = make_bench(tmp_path / "bench"), random.Random(seed)
    kills = 0
    for point in dice.choices(POINTS[1:], k=5):
        kills += kill_at(bench, EXACT, point, dice)
    assert kills >= 3
    ended = bench.train(*EXACT)
    assert ended.code == 0, ended.err
    check_complete(bench.run_folder)
    assert told(bench.run_folder) == told(calm)
    assert same_weights(bench.run_folder, calm)


def test_a_run_that_branches_killed_again_and_again_ends_bit_for_bit_as_one_left_in_peace(tmp_path):
    """Forks get their world by replay; a group that was half played is completed with the same branches."""
    words = (*EXACT, "method.name=arpo", "rollout.strategy.name=entropy_branching", "rollout.strategy.chance=0.9")
    calm, bench, dice = make_bench(tmp_path / "calm"), make_bench(tmp_path / "bench"), random.Random(5)
    ended = calm.train(*words)
    assert ended.code == 0, ended.err
    kills = sum(kill_at(bench, words, point, dice) for point in (in_collect, in_update, in_collect, after_checkpoint))
    assert kills >= 2
    ended = bench.train(*words)
    assert ended.code == 0, ended.err
    check_complete(bench.run_folder)
    assert told(bench.run_folder) == told(calm.run_folder)
    assert same_weights(bench.run_folder, calm.run_folder)
    assert all(line["branches"] >= 1 for line in read_metrics(bench.run_folder / "metrics.jsonl"))


def test_with_many_requests_in_one_pass_the_rewards_are_equal_and_the_weights_nearly(tmp_path, calm):
    bench = make_bench(tmp_path / "bench")
    kill_at(bench, FREE, in_collect, random.Random(0))
    kill_at(bench, FREE, after_checkpoint, random.Random(0))
    ended = bench.train(*FREE)
    assert ended.code == 0, ended.err
    check_complete(bench.run_folder)
    assert told(bench.run_folder) == told(calm)
    one, two = final_weights(bench.run_folder), final_weights(calm)
    assert all(np.allclose(one[name], two[name], atol=1e-3) for name in one)


@pytest.mark.parametrize("seed", [3])
def test_an_asynchronous_run_killed_again_and_again_loses_nothing_and_trains_nothing_twice(tmp_path, seed):
    bench, dice = make_bench(tmp_path / "bench"), random.Random(seed)
    ahead = (*FREE, "rollout.max_staleness=2", "training.batches=6", "training.checkpoint_every=1")
    for point in dice.choices(POINTS[2:], k=4):
        kill_at(bench, ahead, point, dice)
    ended = bench.train(*ahead)
    assert ended.code == 0, ended.err
    check_complete(bench.run_folder, 6)
    assert all(line["staleness_max"] <= 2 for line in read_metrics(bench.run_folder / "metrics.jsonl"))


def interrupt(bench: Bench, overrides: tuple[str, ...], point) -> tuple[int | None, str]:
    life: Running = bench.start(*bench.words(*overrides))
    assert life.wait_until(lambda: point(bench.run_folder))
    life.send(signal.SIGINT)
    ended = life.wait(60)
    assert "Traceback" not in ended.err, ended.err
    return ended.code, ended.out + ended.err


def test_ctrl_c_saves_and_exits_with_130_wherever_it_comes(tmp_path, calm):
    """During a warm start, an evaluation, rollouts and an update, one after the other in one run."""
    bench = make_bench(tmp_path / "bench")
    every = (*EXACT, "evaluation.every=1")
    for point in (in_warm_start, in_evaluation, in_collect, in_update):
        code, said = interrupt(bench, every, point)
        assert code == 130, (point, said)
        assert "the same command goes on from there" in said
        head = rows(bench.run_folder, "SELECT batch FROM head")
        if head:
            lines = read_metrics(bench.run_folder / "metrics.jsonl")
            assert [line["batch"] for line in lines] == list(range(1, head[0][0] + 1))
    ended = bench.train(*every)
    assert ended.code == 0, ended.err
    check_complete(bench.run_folder)
    assert told(bench.run_folder) == told(calm)
    assert same_weights(bench.run_folder, calm)
    lines = [json.loads(line) for line in (bench.run_folder / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= line["held_out_success_0"] <= 1 for line in lines if "held_out_success_0" in line)


REFUSAL = "that lamp is on already"
REFUSES = f'        if color in self.given:\n            raise ToolError("{REFUSAL}")\n'
KEPT = "        self.given.append(color)\n"
ONCE_EACH = (
    LAMPS.replace(KEPT, REFUSES + KEPT)
    .replace("max_steps = 2", "max_steps = 5")
    .replace("from agentrl import Env,", "from agentrl import Env, ToolError,")
)


def test_a_run_with_a_pool_of_errors_killed_again_and_again_ends_bit_for_bit_as_one_left_in_peace(tmp_path):
    """Recoveries go back to errors of earlier batches, which the kill must not lose, repeat or change."""
    words = (
        *EXACT,
        "method.name=fission",
        "rollout.strategy.name=fission",
        "training.batches=6",
        "rollout.max_context=192",
    )
    calm, bench = (make_bench(tmp_path / name, RECIPE, ONCE_EACH) for name in ("calm", "bench"))
    dice = random.Random(7)
    ended = calm.train(*words)
    assert ended.code == 0, ended.err
    kills = sum(kill_at(bench, words, point, dice) for point in (after_checkpoint, in_collect, in_update, in_collect))
    assert kills >= 2
    ended = bench.train(*words)
    assert ended.code == 0, ended.err
    check_complete(bench.run_folder, 6)
    assert told(bench.run_folder) == told(calm.run_folder)
    assert same_weights(bench.run_folder, calm.run_folder)
    forks = [t for t in read_trajectories(calm.run_folder / "payloads.bin") if t.forked_from is not None]
    assert forks and all(not step.trains for t in forks for step in t.steps[: len(t.steps) - len(t.own)])
    assert all(t.own[0].told.startswith("That call failed: ") for t in forks if t.own)
    assert any(REFUSAL in t.own[0].told for t in forks if t.own)
