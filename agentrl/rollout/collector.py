"""Keeps groups in flight and cuts them into batches: the place where staleness is decided.

A batch holds complete groups whose oldest token is at most `max_staleness` versions old, in the order in which
they were issued. With bound 0 nothing is in flight between two batches, so the batch is the one that a plain
synchronous run would make.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from agentrl.errors import TrainingError
from agentrl.protocols import RolloutStrategy, TaskSampler
from agentrl.rollout.accounting import (
    BatchShape,
    CollectorStatistics,
    GroupLedger,
    IssuedGroup,
    Resumed,
    without_filter,
)
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.episode import trajectory_id
from agentrl.rollout.forking import demands_of, orphaned
from agentrl.rollout.group import GroupRollout, oldest_version
from agentrl.rollout.recorder import Recorder
from agentrl.rollout.rewarding import JudgesFailed
from agentrl.types import JSON, Group, GroupName, Status, Task, Trajectory

_POLL = 1.0
"Seconds between two looks for a stalled rollout."

_ADVICE = {
    "faults": "Look at the errors of the failed episodes: the environment or the engine is at fault.",
    "filtered": "Try other tasks, a larger group or a higher temperature.",
    "stale": "The engine samples from old weights: publish before collecting, or raise max_staleness.",
    "unscored": "A reward model of whole groups fails.",
}


class Collector:
    """Issues tasks as groups and returns whole batches. Use it with `async with`, inside that of the rollout engine."""

    def __init__(
        self,
        rollout: RolloutEngine,
        strategy: RolloutStrategy,
        sampler: TaskSampler,
        ledger: GroupLedger,
        shape: BatchShape,
        *,
        keep: Callable[[Group], bool] = without_filter,
    ) -> None:
        self.shape = shape
        self._rollout = rollout
        self._strategy = strategy
        self._sampler = sampler
        self._ledger = ledger
        self._keep = keep
        self._recorder = Recorder(lambda trajectories: ledger.finish(*trajectories))
        self._update = 0
        self._ordinal = 0
        self._again: list[_Order] = []
        self._remembered: dict[int, IssuedGroup] = {}
        self._flights: dict[int, _Flight] = {}
        self._ready: dict[int, Group] = {}
        self._filtered: dict[int, Group] = {}
        self._collecting = False
        self._dropped: Counter[str] = Counter()
        self._statistics = CollectorStatistics()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._issuing = asyncio.Lock()
        self._pump: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Self:
        self._pump = asyncio.create_task(self._issue_forever(), name="collector")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._pump is not None
        works = [self._pump, *(flight.work for flight in self._flights.values())]
        # A task that the sampler gave is in the ledger before the issuing stops: it cannot fall between the two.
        async with self._issuing:
            for work in works:
                work.cancel()
        await asyncio.gather(*works, return_exceptions=True)
        await self._recorder.close()

    async def position(self) -> tuple[int, JSON]:
        """How many tasks the sampler has given, and its state: where a run resumed from now goes on.

        Every task that it gave is in the ledger.
        """
        async with self._issuing:
            return self._ordinal, self._sampler.state()

    def resume(self, state: Resumed) -> None:
        """Go on from a ledger, before the first batch; the sampler has its state from the same moment.

        Groups issued before that moment are issued again. Later ones are used only where the sampler draws the same
        task once more.
        """
        self._update, self._ordinal = state.update, state.ordinal
        for group in state.groups:
            if group.ordinal < state.ordinal:
                heapq.heappush(self._again, _Order(group.ordinal, group.id, group.task, group, issued=True))
            else:
                self._remembered[group.ordinal] = group

    def take_statistics(self) -> CollectorStatistics:
        """What happened since the last call."""
        taken, self._statistics = self._statistics, CollectorStatistics()
        taken.in_flight, taken.ready = len(self._flights), len(self._ready)
        taken.forks, self._rollout.forks = dict(self._rollout.forks), Counter()
        return taken

    async def next_batch(self, version: int) -> list[Group]:
        """The groups of one batch, for weights of `version`. Raises `TrainingError` or `StoreError`."""
        quiet_since = time.monotonic()
        self._collecting, self._dropped = True, Counter()
        try:
            while True:
                self._raise_failure()
                if await self._sweep(version):
                    # Groups that were completed while it waited were not looked at.
                    continue
                if len(self._ready) >= self.shape.groups:
                    break
                self._changed.clear()
                self._room.set()
                quiet_since = await self._wait(quiet_since)
        finally:
            self._collecting = False
        return await self._cut(version)

    async def _cut(self, version: int) -> list[Group]:
        """Take the oldest complete groups, and tell the ledger and the sampler."""
        ordinals = sorted(self._ready)[: self.shape.groups]
        batch = [self._ready.pop(ordinal) for ordinal in ordinals]
        self._update += 1
        members = [trajectory.id for group in batch for trajectory in group.trajectories]
        await asyncio.to_thread(self._ledger.batched, self._update, members)
        for _, group in sorted([*zip(ordinals, batch, strict=True), *self._filtered.items()], key=lambda pair: pair[0]):
            self._sampler.observe(group)
        self._filtered.clear()
        self._statistics.used += len(batch)
        for group in batch:
            age = version - _oldest(group, version)
            self._statistics.staleness[age] = self._statistics.staleness.get(age, 0) + 1
        return batch

    async def _wait(self, quiet_since: float) -> float:
        """Until something changed; raises where no episode has moved for too long."""
        try:
            async with asyncio.timeout(min(_POLL, self._rollout.supervision.stall_deadline / 4)):
                await self._changed.wait()
            return time.monotonic()
        except TimeoutError:
            quiet_since = max(quiet_since, self._rollout.last_progress)
            quiet = time.monotonic() - quiet_since
            if quiet > self._rollout.supervision.stall_deadline:
                waits = [f"{name}: {what} ({seconds:.0f} s)" for name, what, seconds in self._rollout.waiting()[:8]]
                shown = (
                    "; ".join(waits)
                    or f"{len(self._flights)} groups outside of any episode (strategy, reward of groups)"
                )
                raise TrainingError(
                    f"no episode has moved for {quiet:.0f} s (stall_deadline). In flight: {shown}. `agentrl doctor` on "
                    "the run's folder says where they stand; the same command goes on."
                ) from None
            return quiet_since

    async def _sweep(self, version: int) -> bool:
        """Drop what is too old for this version, or will be, and issue its tasks again; whether there was any."""
        bound = version - self.shape.max_staleness
        stale = [ordinal for ordinal, group in self._ready.items() if _oldest(group, version) < bound]
        for ordinal in stale:
            group = self._ready.pop(ordinal)
            await self._issue_anew(ordinal, group.id, group.task)
        flying = [flight for flight in self._flights.values() if _is_older(flight.rollout.oldest_version, bound)]
        for flight in flying:
            flight.work.cancel()
        if flying:
            await asyncio.wait([flight.work for flight in flying])
        for flight in flying:
            # It may have ended by itself while the sweep waited: then its verdict stands.
            if flight.swept:
                await self._issue_anew(flight.order.ordinal, flight.order.group, flight.order.task)
        return bool(stale or flying)

    async def _issue_anew(self, ordinal: int, group: str, task: Task) -> None:
        self._count_drop("stale")
        fresh = _again(group)
        await asyncio.to_thread(self._ledger.reissue, group, fresh, self._members(fresh))
        heapq.heappush(self._again, _Order(ordinal, fresh, task, issued=True))
        self._room.set()

    async def _issue_forever(self) -> None:
        """Fill the capacity whenever there is room."""
        try:
            while True:
                await self._room.wait()
                self._room.clear()
                while (room := self._capacity() - len(self._flights) - len(self._ready)) > 0:
                    async with self._issuing:
                        orders = await self._orders(room)
                    for order in orders:
                        self._launch(order)
        except Exception as error:
            self._fail(error)

    def _capacity(self) -> int:
        return self.shape.ahead + (self.shape.groups if self._collecting else 0)

    async def _orders(self, room: int) -> list[_Order]:
        """The next groups to issue, at most `room`; all of them are in the ledger when this returns."""
        orders = [heapq.heappop(self._again) for _ in range(min(room, len(self._again)))]
        if not orders:
            tasks = self._sampler.next(room)
            if not tasks:
                raise TrainingError(
                    f"the task sampler gave no task, and {len(self._ready)} of {self.shape.groups} groups of the batch "
                    "are complete. Let the sampler's `next` always give at least one."
                )
            orders = [self._drawn(task) for task in tasks]
        return [await self._noted(order) for order in orders]

    async def _noted(self, order: _Order) -> _Order:
        """The order as it stands in the ledger; a group whose forks have lost their parent begins anew."""
        if not order.issued:
            members = self._members(order.group)
            await asyncio.to_thread(self._ledger.issue, order.ordinal, order.group, order.task, members)
        elif order.known is not None and orphaned(order.known.recorded):
            fresh = _again(order.group)
            await asyncio.to_thread(self._ledger.reissue, order.group, fresh, self._members(fresh))
            return _Order(order.ordinal, fresh, order.task, issued=True)
        return order

    def _drawn(self, task: Task) -> _Order:
        """The order for a task that the sampler gave, with what an earlier run already played of it."""
        ordinal, self._ordinal = self._ordinal, self._ordinal + 1
        known = self._remembered.pop(ordinal, None)
        name = str(GroupName(ordinal))
        if known is not None and known.id == name and known.task == task:
            return _Order(ordinal, name, task, known, issued=True)
        return _Order(ordinal, name, task)

    def _members(self, group: str) -> list[str]:
        return [trajectory_id(group, member) for member in range(self.shape.group_size)]

    def _launch(self, order: _Order) -> None:
        recorded = {} if order.known is None else order.known.recorded
        rollout = self._rollout.group(
            order.group, recorded, self._recorder.record, demands_of(self._strategy), self._ledger.trajectory
        )
        flight = _Flight(order, rollout)
        flight.work = asyncio.create_task(self._fly(flight), name=f"group {order.group}")
        self._flights[order.ordinal] = flight
        self._statistics.issued += 1

    async def _fly(self, flight: _Flight) -> None:
        """Run the strategy for one group and judge what came of it."""
        order = flight.order
        try:
            trajectories = await self._strategy.run(order.task, self.shape.group_size, flight.rollout)
            await self._settle(flight, trajectories)
        except asyncio.CancelledError:
            flight.swept = True
        except Exception as error:
            self._fail(error)
        finally:
            self._flights.pop(order.ordinal, None)
            self._changed.set()
            self._room.set()

    async def _settle(self, flight: _Flight, trajectories: Sequence[Trajectory]) -> None:
        order = flight.order
        counts = self._statistics.episodes
        for trajectory in trajectories:
            counts[trajectory.status] = counts.get(trajectory.status, 0) + 1
        if any(trajectory.status is Status.CANCELLED for trajectory in trajectories):
            # Only the end of the run cancels single episodes; what is not in the ledger is issued again on resume.
            return
        self._statistics.finished += 1
        usable = tuple(t for t in trajectories if t.status.trains and t.steps)
        group = Group(order.group, order.task, usable)
        if len(usable) < self.shape.minimum_group:
            return await self._drop(order, "faults")
        try:
            group = await self._scored(flight, group)
        except JudgesFailed as error:
            return await self._drop(order, "unscored", str(error))
        if not self._keep(group):
            self._filtered[order.ordinal] = group
            await self._drop(order, "filtered")
        else:
            self._ready[order.ordinal] = group

    async def _scored(self, flight: _Flight, group: Group) -> Group:
        """The group with what compares its members; in the ledger before anything is decided by it."""
        known = flight.order.known.settled if flight.order.known else None
        group, settlement = await flight.rollout.settle(group, known)
        if settlement is not None and settlement is not known:
            await asyncio.to_thread(self._ledger.settle, group.id, settlement)
        return group

    async def _drop(self, order: _Order, reason: str, error: str = "") -> None:
        await asyncio.to_thread(self._ledger.drop, order.group, reason)
        self._count_drop(reason, error)

    def _count_drop(self, reason: str, error: str = "") -> None:
        """Raises `TrainingError` where one batch costs more groups than allowed; `error` is the last of its reason."""
        self._statistics.drop(reason)
        self._dropped[reason] += 1
        # Nothing but a server's health decides whether a group is scored: a batch's worth of silence is enough.
        if self._dropped.total() > self.shape.drops_allowed or self._dropped["unscored"] > self.shape.groups:
            told = ", ".join(f"{reason}: {count:,}" for reason, count in self._dropped.most_common())
            advice = f"{_ADVICE[self._dropped.most_common(1)[0][0]]} {error}".strip()
            raise TrainingError(
                f"{self._dropped.total():,} groups were dropped while one batch was collected ({told}); "
                f"{len(self._ready)} of {self.shape.groups} are complete. {advice}"
            )

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._changed.set()

    def _raise_failure(self) -> None:
        self._rollout.check()
        if self._failure is not None:
            raise self._failure


@dataclass(frozen=True, slots=True)
class _Order:
    """A group to issue. Sorted by ordinal, so that what waited longest goes first."""

    ordinal: int
    group: str
    task: Task
    known: IssuedGroup | None = None
    issued: bool = False
    "The ledger has it already."

    def __lt__(self, other: _Order) -> bool:
        return self.ordinal < other.ordinal


class _Flight:
    """A group in flight."""

    def __init__(self, order: _Order, rollout: GroupRollout) -> None:
        self.order = order
        self.rollout = rollout
        self.work: asyncio.Task[None]
        self.swept = False


def _oldest(group: Group, version: int) -> int:
    """Version of the group's oldest token; a group that sampled nothing is as fresh as `version`."""
    oldest = oldest_version(group.trajectories)
    return version if oldest is None else oldest


def _is_older(version: int | None, bound: int) -> bool:
    return version is not None and version < bound


def _again(group: str) -> str:
    """A group that is issued again keeps its ordinal and gets a new id."""
    name = GroupName.read(group)
    assert name is not None, group
    return str(replace(name, again=name.again + 1))
