"""The loop keeps its order, stops between batches, and saves whatever ends it; the run behind it saves nothing half."""

import asyncio
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from builders import make_groups, make_trajectory

from agentrl.batch import build_batch, with_credit
from agentrl.protocols import UpdateReport
from agentrl.rollout.accounting import CollectorStatistics
from agentrl.rollout.rewarding import RewardTerm
from agentrl.runs.rewards import RewardModels
from agentrl.runs.run import Parts, Plan, TrainingRun
from agentrl.training.loop import train
from agentrl.training.metrics import MetricsLog, read_metrics


class Told:
    """A run that notes what is asked of it; `stuck` is the verb that waits, `broken` the one that raises."""

    def __init__(self, batches=2, batch=0, stuck="", broken=""):
        self.batch, self.batches = batch, batches
        self.stuck, self.broken = stuck, broken
        self.verbs = []
        self.reached, self.release = asyncio.Event(), asyncio.Event()

    async def _do(self, verb):
        self.verbs.append(verb)
        if verb == self.broken:
            raise ValueError(verb)
        if verb == self.stuck:
            self.reached.set()
            await self.release.wait()
            self.verbs.append(f"{verb} ended")

    async def publish(self):
        await self._do("publish")
        return self.batch

    async def collect(self, version):
        assert version == self.batch
        await self._do("collect")
        return []

    async def credit(self, groups):
        self.verbs.append("credit")
        return build_batch(groups)

    async def update(self, batch):
        await self._do("update")
        self.batch += 1

    async def report(self):
        await self._do("report")

    async def save(self, *, final=False):
        await self._do("save at the end" if final else "save")


BATCH = ["publish", "collect", "credit", "update", "report", "save"]


async def test_the_loop_is_publish_collect_credit_update_report_save():
    run = Told(batches=2)
    await train(run)
    assert run.verbs == [*BATCH, *BATCH, "publish", "save at the end"]


async def test_a_run_that_is_complete_trains_nothing():
    run = Told(batches=2, batch=2)
    await train(run)
    assert run.verbs == ["publish", "save at the end"]


async def test_a_resumed_run_does_what_is_left():
    run = Told(batches=3, batch=2)
    await train(run)
    assert run.verbs == [*BATCH, "publish", "save at the end"]


@pytest.mark.parametrize("verb", ["publish", "collect", "update", "report", "save"])
async def test_an_error_is_raised_and_what_is_whole_is_saved(verb):
    run = Told(broken=verb)
    with pytest.raises(ValueError, match=verb):
        await train(run)
    assert run.verbs == [*BATCH[: BATCH.index(verb) + 1], "save at the end"]


@pytest.mark.parametrize("verb", ["publish", "collect", "report", "save"])
async def test_a_cancelled_wait_ends_at_once_and_saves(verb):
    run = Told(stuck=verb)
    work = asyncio.create_task(train(run))
    await run.reached.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert run.verbs == [*BATCH[: BATCH.index(verb) + 1], "save at the end"]


async def test_a_cancelled_update_ends_before_anything_is_saved():
    run = Told(stuck="update")
    work = asyncio.create_task(train(run))
    await run.reached.wait()
    work.cancel()
    await asyncio.sleep(0)
    assert run.verbs[-1] == "update"
    run.release.set()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert run.verbs == ["publish", "collect", "credit", "update", "update ended", "save at the end"]
    assert run.batch == 1


class Learner:
    """One update a batch; `breaks` is the update at which it raises, `halfway` whether it wrote weights before."""

    def __init__(self, breaks=99, halfway=False):
        self.version, self.saved = 0, []
        self._breaks, self._halfway = breaks, halfway

    def update(self, batch):
        if self.version + 1 == self._breaks:
            self.version += self._halfway
            raise MemoryError("out of memory")
        self.version += 1
        return UpdateReport(True, "", {"updates": 1.0, "loss": 0.5, "mismatch": 0.0})

    def named_tensors(self):
        return {}

    def save(self, folder):
        folder.mkdir(parents=True)
        self.saved.append((folder.name, self.version))


class Everything:
    """Publisher, collector, ledger, panel, evaluation and events of a run, with what they were told."""

    def __init__(self):
        self.published, self.heads, self.shown, self.events = [], [], [], []
        self.evaluating, self.stuck = asyncio.Event(), False
        self.never = asyncio.Event()

    async def publish(self, version, tensors):
        self.published.append(version)

    async def next_batch(self, version):
        return make_groups(a=[make_trajectory(f"a{i}", "a", [float(i)]) for i in range(2)])

    def take_statistics(self):
        return CollectorStatistics(episodes={"ok": 2})

    async def position(self):
        return len(self.heads), {"place": len(self.heads)}

    def set_head(self, batch, checkpoint, sampler, ordinal):
        self.heads.append((batch, checkpoint))

    def show(self, report):
        self.shown.append(report)

    async def evaluate(self, version):
        self.evaluating.set()
        if self.stuck:
            await self.never.wait()
        return {"held_out_success_0": 0.25}

    def __getattr__(self, name):
        if not name.startswith("agentrl_"):
            raise AttributeError(name)
        return lambda **told: self.events.append(name)


def credit(batch):
    ones = np.ones(len(batch.columns), np.float32)
    return with_credit(batch, batch.table.reward - 0.5, ones, ones)


class Estimator:
    """A reward model that learns: `fits` is its memory, `breaks` the fit at which it raises."""

    trains = True

    def __init__(self, breaks=99):
        self.fits, self.threads, self._breaks = 0, set(), breaks

    async def score(self, trajectory):
        return [0.0] * len(trajectory.steps)

    def fit(self, groups):
        self.threads.add(threading.current_thread().name)
        assert [group.id for group in groups] == ["a"]
        if self.fits + 1 == self._breaks:
            raise MemoryError("out of memory")
        self.fits += 1
        return {"loss": 1.0 / self.fits}

    def save(self, folder):
        folder.mkdir(parents=True)
        (folder / "fits").write_text(str(self.fits))

    def load(self, folder):
        raise NotImplementedError


def make_run(folder, learner, *, every=0, checkpoint_every=1, trackers=(), batches=3, rewards=()):
    rest = Everything()
    plan = Plan(batches, every, checkpoint_every, 2, asynchronous=False, offers_tools=True)
    parts = Parts(
        method=SimpleNamespace(columns=build_batch, assign=credit, state=dict),
        learner=learner,
        publisher=rest,
        collector=rest,
        ledger=rest,
        metrics=MetricsLog(folder / "metrics.jsonl"),
        trackers=trackers,
        events=rest,
        panel=rest,
        evaluate=rest.evaluate,
        rewards=RewardModels([RewardTerm("progress", model) for model in rewards]),
    )
    return TrainingRun(folder, plan, parts), rest


async def test_a_run_saves_reports_and_publishes_every_batch(tmp_path):
    learner = Learner()
    run, rest = make_run(tmp_path, learner, every=2)
    await train(run)
    run.close()
    assert rest.published == [0, 1, 2, 3]
    assert learner.saved == [("batch-000001", 1), ("batch-000002", 2), ("batch-000003", 3)]
    assert rest.heads == [(n, f"checkpoints/batch-00000{n}") for n in (1, 2, 3)]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["batch-000002", "batch-000003"]
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["batch"] for line in lines] == [1, 2, 3]
    assert [line.get("held_out_success_0") for line in lines] == [None, 0.25, None]
    assert lines[0]["reward"] == 0.5 and lines[0]["update_loss"] == 0.5
    assert [report.batch for report in rest.shown] == [1, 2, 3]


async def test_a_reward_model_learns_after_each_update_and_is_saved_before_the_head_moves(tmp_path):
    model = Estimator()
    run, rest = make_run(tmp_path, Learner(), checkpoint_every=2, rewards=[model])
    heads = rest.set_head

    def set_head(batch, checkpoint, *rest):
        assert (tmp_path / checkpoint / "rewards" / "progress" / "fits").read_text() == str(batch)
        heads(batch, checkpoint, *rest)

    rest.set_head = set_head
    await train(run)
    run.close()
    assert [batch for batch, _ in rest.heads] == [2, 3]
    assert len(model.threads) == 1 and threading.current_thread().name not in model.threads
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["reward_progress_loss"] for line in lines] == [1.0, 1 / 2, 1 / 3]


async def test_a_reward_model_that_fails_leaves_no_checkpoint_of_half_a_batch(tmp_path):
    learner = Learner()
    run, rest = make_run(tmp_path, learner, checkpoint_every=5, rewards=[Estimator(breaks=2)])
    with pytest.raises(MemoryError):
        await train(run)
    run.close()
    assert learner.version == 2 and learner.saved == [] == rest.heads


@pytest.mark.parametrize(("halfway", "saved"), [(True, [("batch-000002", 2)]), (False, [("batch-000002", 2)])])
async def test_an_update_that_fails_leaves_the_last_whole_batch(tmp_path, halfway, saved):
    learner = Learner(breaks=3, halfway=halfway)
    run, rest = make_run(tmp_path, learner, checkpoint_every=2)
    with pytest.raises(MemoryError):
        await train(run)
    run.close()
    assert learner.saved == saved
    assert rest.heads == [(2, "checkpoints/batch-000002")]


@pytest.mark.parametrize("halfway", [True, False])
async def test_weights_that_hold_half_a_batch_are_never_saved_and_whole_ones_are(tmp_path, halfway):
    """The checkpoint would be called batch 1 and hold a part of batch 2, which is trained on again after a resume."""
    learner = Learner(breaks=2, halfway=halfway)
    run, rest = make_run(tmp_path, learner, checkpoint_every=5)
    with pytest.raises(MemoryError):
        await train(run)
    run.close()
    assert learner.saved == ([] if halfway else [("batch-000001", 1)])
    assert len(rest.heads) == len(learner.saved)


async def test_a_batch_whose_report_was_cancelled_has_its_line_all_the_same(tmp_path):
    learner = Learner()
    run, rest = make_run(tmp_path, learner, every=1)
    rest.stuck = True
    work = asyncio.create_task(train(run))
    await rest.evaluating.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    run.close()
    assert rest.heads == [(1, "checkpoints/batch-000001")]
    assert [line["batch"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1]


class Tracker:
    def __init__(self, fails):
        self.fails, self.logged, self.closed = fails, [], 0

    def start(self, run, config):
        pass

    def log(self, update, metrics):
        self.logged.append(update)
        if self.fails:
            raise ConnectionError("the tracker's server is away")

    def close(self):
        self.closed += 1


async def test_a_tracker_that_fails_is_named_once_and_left_out(tmp_path, capsys):
    good, bad = Tracker(False), Tracker(True)
    run, _ = make_run(tmp_path, Learner(), trackers=(bad, good))
    await train(run)
    run.close()
    assert (good.logged, good.closed) == ([1, 2, 3], 1)
    assert (bad.logged, bad.closed) == ([1], 0)
    assert capsys.readouterr().out.count("the tracker's server is away") == 1
    assert [line["batch"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
