"""One run while it lives: the parts that a recipe chose, behind the six verbs of the training loop.

Timing, metrics, events and checkpoints happen here, so that `training/loop.py` can read as the method.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from agentrl.batch import TrainingBatch
from agentrl.method import Method
from agentrl.protocols import Learner, Tracker, UpdateReport, WeightPublisher
from agentrl.rollout.accounting import CollectorStatistics
from agentrl.rollout.collector import Collector
from agentrl.runs.folder import sync_checkpoint, write_method_state
from agentrl.runs.hints import Hints
from agentrl.runs.null import NullScore
from agentrl.runs.rewards import RewardModels
from agentrl.runs.summary import Progress, shape_metrics, summarize, trained_columns
from agentrl.store.ledger import Ledger
from agentrl.training.health import health_lines
from agentrl.training.metrics import MetricsLog
from agentrl.training.report import ProgressReport, TimeSplit
from agentrl.types import Group, Status

T = TypeVar("T")


class Panel(Protocol):
    """Shows reports while a run goes on."""

    def show(self, report: ProgressReport) -> None: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """When things happen, in batches."""

    batches: int
    evaluate_every: int
    checkpoint_every: int
    keep_checkpoints: int
    asynchronous: bool
    "Rollouts go on while the learner works, so waiting for them is idling."
    offers_tools: bool
    null: NullScore | None = None
    "What an agent that says nothing earns, where it was measured."


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is made of."""

    method: Method
    learner: Learner
    publisher: WeightPublisher
    collector: Collector
    ledger: Ledger
    metrics: MetricsLog
    trackers: Sequence[Tracker]
    events: Any
    "The plugin host's caller of event hooks."
    panel: Panel
    evaluate: Callable[[int], Awaitable[dict[str, float]]]
    "On held-out tasks with the published weights; takes the policy version, gives metrics."
    critic: Any = None
    "`training.critic.TorchCritic` where the method has one."
    hints: Hints | None = None
    "Where the method's teacher is told more than the policy."
    rewards: RewardModels = field(default_factory=RewardModels)
    enter: Callable[[str, int], None] = lambda doing, batch: None
    "Told what the run does now, and how many batches are done."


@dataclass(slots=True)
class _Moment:
    """What the verbs of one batch leave for its report."""

    groups: Sequence[Group] = ()
    batch: TrainingBatch | None = None
    report: UpdateReport | None = None
    fitted: dict[str, float] = field(default_factory=dict)
    "What the reward models that learn say of it."
    version: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


class TrainingRun:
    """Implements `training.loop.Run`."""

    def __init__(self, folder: Path, plan: Plan, parts: Parts, *, batch: int = 0) -> None:
        self.folder = folder
        self.batch = batch
        self.batches = plan.batches
        self.history: list[ProgressReport] = []
        self._plan = plan
        self._parts = parts
        self._now = _Moment()
        self._saved = batch
        self._began: float | None = None
        self._first = batch
        self._published = -1
        self._told = batch
        self._torn = False
        self._dead_trackers: set[int] = set()
        self._thread = ThreadPoolExecutor(1, "learner")

    async def publish(self) -> int:
        self._parts.enter("publishing weights", self.batch)
        began = time.monotonic()
        version = await self._bring()
        self._now = _Moment(version=version, seconds={"publish": time.monotonic() - began})
        return version

    async def _bring(self) -> int:
        version = self._parts.learner.version
        if version != self._published:
            # In a thread: adapters are merged here, and episodes go on meanwhile.
            tensors = await self._in_learner_thread(self._parts.learner.named_tensors)
            await self._parts.publisher.publish(version, tensors)
            self._published = version
        return version

    async def collect(self, version: int) -> Sequence[Group]:
        self._parts.enter("collecting a batch", self.batch)
        began = time.monotonic()
        # The time to the end is told from batches alone: what came before the first one says nothing about it.
        self._began = began if self._began is None else self._began
        self._now.groups = await self._parts.collector.next_batch(version)
        self._now.seconds["collect"] = time.monotonic() - began
        return self._now.groups

    async def credit(self, groups: Sequence[Group]) -> TrainingBatch:
        self._parts.enter("giving credit", self.batch)
        method, critic, hints = self._parts.method, self._parts.critic, self._parts.hints
        batch = method.columns(groups, None if hints is None else await hints.prompts(groups))
        if critic is not None:
            values = await self._in_learner_thread(partial(critic.values, batch))
            batch = replace(batch, table=replace(batch.table, value=values))
        self._now.batch = method.assign(batch)
        return self._now.batch

    async def update(self, batch: TrainingBatch) -> None:
        self._parts.enter("updating", self.batch)
        began = time.monotonic()
        self._parts.events.agentrl_before_update(batch=batch)
        try:
            self._now.report = await self._in_learner_thread(partial(self._learn, batch))
        except BaseException:
            self._torn = self._parts.learner.version != self._now.version
            raise
        if self._now.report.taught is not None:
            trained = trained_columns(batch, self._now.report.taught, self.batch)
            await asyncio.to_thread(self._parts.ledger.keep_trained, self.batch, trained)
        rewards = self._parts.rewards
        self._torn = rewards.learns
        self._now.fitted = await self._in_learner_thread(partial(rewards.fit, self._now.groups))
        self._torn = False
        self.batch += 1
        self._now.seconds["train"] = time.monotonic() - began
        self._parts.events.agentrl_after_update(report=self._now.report)

    def _learn(self, batch: TrainingBatch) -> UpdateReport:
        """The critic after the policy: the advantages were taken with its values from before."""
        critic = self._parts.critic
        if critic is None:
            return self._parts.learner.update(batch)
        if self.batch < critic.settings.warmup_batches:
            report = UpdateReport(False, "the critic learns alone at first (warmup_batches)", {})
        else:
            report = self._parts.learner.update(batch)
        fitted = critic.fit(batch, self._parts.method.targets(batch.table))
        return replace(report, metrics={**report.metrics, **fitted})

    async def report(self) -> None:
        measured: dict[str, float] = {}
        if self._evaluates():
            await self._bring()
            measured = await self._parts.evaluate(self._parts.learner.version)
        self._tell(measured)

    def _tell(self, measured: dict[str, float]) -> None:
        now = self._now
        assert now.batch is not None and now.report is not None
        statistics = self._parts.collector.take_statistics()
        report = summarize(now.groups, now.batch, now.report, self._progress(statistics))
        report = replace(report, health=tuple(health_lines([*self.history, report])))
        self.history.append(report)
        metrics = report.metrics() | {f"update_{name}": value for name, value in now.report.metrics.items()}
        metrics |= shape_metrics(now.groups, statistics)
        metrics |= self._now.fitted | self._parts.rewards.take_metrics() | measured
        self._told = self.batch
        self._parts.metrics.write(self.batch, metrics)
        self._track(self._parts.learner.version, metrics)
        self._parts.panel.show(report)

    async def save(self, *, final: bool = False) -> None:
        due = self.batch % self._plan.checkpoint_every == 0 or final
        # Where an update stopped half-way, its weights hold a part of a batch that will be trained on again.
        if not due or self.batch == self._saved or self._torn:
            return
        if self._told < self.batch:
            # Cancelled between an update and its report: the batch counts, so it has its line.
            self._tell({})
        self._parts.enter("saving a checkpoint", self.batch)
        folder = self.folder / "checkpoints" / f"batch-{self.batch:06d}"
        await self._in_learner_thread(partial(self._parts.learner.save, folder))
        write_method_state(folder, self._parts.method.state())
        if self._parts.critic is not None:
            await self._in_learner_thread(partial(self._parts.critic.save, folder))
        await self._in_learner_thread(partial(self._parts.rewards.save, folder))
        # The learner's own files are on the disk; what was written beside them has to be, before the head names them.
        await self._in_learner_thread(partial(sync_checkpoint, folder))
        checkpoint = str(folder.relative_to(self.folder))
        ordinal, sampler = await self._parts.collector.position()
        self._parts.ledger.set_head(self.batch, checkpoint, sampler, ordinal)
        self._saved = self.batch
        self._parts.events.agentrl_checkpoint(folder=folder, update=self._parts.learner.version)
        self._forget_old_checkpoints()

    async def _in_learner_thread(self, work: Callable[[], T]) -> T:
        """Always the same thread: each one would keep memory and a pool of compute threads of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        self._thread.shutdown()
        for tracker in self._parts.trackers:
            self._try(tracker, tracker.close)
        self._parts.metrics.close()

    def _progress(self, statistics: CollectorStatistics) -> Progress:
        seconds = self._now.seconds
        collect = seconds.get("collect", 0.0)
        split = TimeSplit(
            generate=0.0 if self._plan.asynchronous else collect,
            train=seconds.get("train", 0.0),
            publish=seconds.get("publish", 0.0),
            wait=collect if self._plan.asynchronous else 0.0,
        )
        dispatched = sum(statistics.episodes.values())
        failed = sum(count for status, count in statistics.episodes.items() if not Status(status).trains)
        stale = statistics.dropped.get("stale", 0)
        done = self.batch - self._first
        each = (time.monotonic() - (self._began or 0.0)) / max(done, 1)
        return Progress(
            batch=self.batch,
            batches=self.batches,
            version=self._now.version,
            failed=failed / max(dispatched, 1),
            stale=stale / max(stale + statistics.used, 1),
            offers_tools=self._plan.offers_tools,
            null=self._plan.null,
            time=split,
            eta=each * (self.batches - self.batch),
        )

    def _evaluates(self) -> bool:
        every = self._plan.evaluate_every
        return every > 0 and self.batch % every == 0 and self.batch < self.batches

    def _track(self, update: int, metrics: dict[str, float]) -> None:
        for tracker in self._parts.trackers:
            self._try(tracker, lambda t=tracker: t.log(update, metrics))  # type: ignore[misc]

    def _try(self, tracker: Tracker, call: Callable[[], None]) -> None:
        """A tracker that fails is named once and then left out: metrics.jsonl has everything."""
        if id(tracker) in self._dead_trackers:
            return
        try:
            call()
        except Exception as error:
            self._dead_trackers.add(id(tracker))
            print(f"tracker  {type(tracker).__name__} failed and is left out from here on: {error}", flush=True)

    def _forget_old_checkpoints(self) -> None:
        kept = sorted((self.folder / "checkpoints").glob("batch-*"))[-self._plan.keep_checkpoints :]
        for folder in (self.folder / "checkpoints").glob("batch-*"):
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)
