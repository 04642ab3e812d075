"""The rollout engine: one supervised asyncio task per episode, with slots, retries and one way out.

Every dispatched episode ends in exactly one terminal record, whatever happened to it; what a fault or a
cancellation cut short is never scored.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from agentrl.errors import EnvironmentFault, InfrastructureFault, TrainingError
from agentrl.protocols import Environment
from agentrl.rollout.decisions import Player
from agentrl.rollout.episode import Episode, Setting, trajectory_id
from agentrl.rollout.failures import FailureWindow
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.rollout.rewarding import Judges, JudgesFailed, RewardTerm, told
from agentrl.types import Status, Task, Trajectory

_LOG = logging.getLogger("agentrl.rollout")


class RolloutEngine:
    """Plays episodes within its limits; implements `protocols.Rollout`. Use it with `async with`."""

    def __init__(
        self,
        environment: Callable[[], Environment],
        player: Player,
        *,
        limits: EpisodeLimits | None = None,
        supervision: Supervision | None = None,
        rewards: Sequence[RewardTerm] = (),
        on_trajectory: Callable[[Trajectory], None] | None = None,
        seed: int = 0,
    ) -> None:
        self.limits = limits or EpisodeLimits()
        self.supervision = supervision or Supervision()
        self.player = player
        self.failure: Exception | None = None
        "Why the run has to stop, if it has to."
        self._last_end = time.monotonic()
        self._setting = Setting(player, self.limits, seed, asyncio.Semaphore(self.supervision.engine_slots))
        self._environment = environment
        self._judges = Judges(rewards, self.limits.reward_deadline, self.supervision)
        self._on_trajectory = on_trajectory
        self._places = asyncio.Semaphore(self.supervision.environment_slots)
        self._window = FailureWindow(self.supervision.window, self.supervision.failure_bound)
        self._running: set[asyncio.Task[Trajectory]] = set()
        self._live: dict[int, Episode] = {}
        self._open = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def episode(self, task: Task, member: int) -> Trajectory:
        """Play one episode outside of any collected group; its group is named after the task."""
        return await self.group(task.id).episode(task, member)

    def group(
        self,
        name: str,
        recorded: Mapping[int, Trajectory] | None = None,
        record: Callable[[Trajectory], Awaitable[None]] | None = None,
    ) -> GroupRollout:
        """The engine as the strategy of one group sees it.

        Members in `recorded` are given back without being played; `record` is awaited with every other record,
        except cancelled ones, before the strategy sees it.
        """
        return GroupRollout(self, name, recorded or {}, record)

    def waiting(self) -> list[tuple[str, str, float]]:
        """For every episode in flight: its id, what it waits for, and for how many seconds; longest first."""
        now = time.monotonic()
        found = [(episode.id, episode.stage, now - episode.since) for episode in self._live.values()]
        return sorted(found, key=lambda entry: -entry[2])

    @property
    def last_progress(self) -> float:
        """When (`time.monotonic`) an episode last went from one wait to the next, or ended."""
        return max([self._last_end, *(episode.since for episode in self._live.values())])

    def check(self) -> None:
        """Raise what stopped the run, if anything did."""
        if self.failure is not None:
            raise self.failure

    async def close(self) -> None:
        """Cancel every episode and wait until each has its record and its environment is closed."""
        self._open = False
        for work in self._running:
            work.cancel()
        if self._running:
            late = 2 * self.limits.close_deadline + self.limits.reset_deadline
            _, left = await asyncio.wait(self._running, timeout=late)
            for work in left:
                _LOG.error("%s did not end within %g s of its cancellation", work.get_name(), late)

    async def dispatch(self, task: Task, member: int, group: GroupRollout) -> Trajectory:
        """Play one episode in a task of its own. Raises only what stops the run."""
        self.check()
        if not self._open:
            raise TrainingError(f"the rollout engine is closed; task {task.id!r} cannot be played.")
        work = asyncio.create_task(self._supervise(task, member, group), name=trajectory_id(group.name, member))
        self._running.add(work)
        try:
            cancelled = await _outlast(work)
        finally:
            self._running.discard(work)
        if work.cancelled():
            # Cancelled before its first line ran, so it could not make its own record.
            trajectory = Episode(self._setting, task, group=group.name, member=member).record(
                Status.CANCELLED, "cancelled before it began"
            )
        else:
            trajectory = work.result()
        self._announce(trajectory)
        if cancelled is not None:
            raise cancelled
        group.ended(member, trajectory)
        if trajectory.status is not Status.CANCELLED:
            await group.record(trajectory)
        self.check()
        return trajectory

    async def _supervise(self, task: Task, member: int, group: GroupRollout) -> Trajectory:
        """Attempt the episode until it ends without a fault, or the attempts are spent."""
        attempt = 0
        while True:
            episode = Episode(self._setting, task, group=group.name, member=member, attempt=attempt)
            self._live[id(episode)] = episode
            group.began(member, episode)
            try:
                trajectory = await self._judges.score(episode, await self._attempt(episode))
            except asyncio.CancelledError:
                return episode.record(Status.CANCELLED, f"cancelled while it waited for {episode.stage}")
            except Exception as error:
                status, words = _attribution(error)
                self._failed(task, words)
                attempt += 1
                spent = attempt >= self.supervision.attempts or isinstance(error, JudgesFailed)
                if spent or self.failure is not None:
                    return episode.record(status, words)
            else:
                self._window.passed()
                return trajectory
            finally:
                del self._live[id(episode)]
                self._last_end = time.monotonic()
            if status is Status.INFRASTRUCTURE_ERROR:
                try:
                    await asyncio.sleep(self.supervision.backoff * 2 ** (attempt - 1))
                except asyncio.CancelledError:
                    return episode.record(Status.CANCELLED, "cancelled between two attempts")

    async def _attempt(self, episode: Episode) -> Trajectory:
        """One try in a fresh environment, which is closed before its slot is given back."""
        episode.enter("an environment slot")
        async with self._places:
            episode.enter("a new environment")
            try:
                environment = self._environment()
            except (EnvironmentFault, InfrastructureFault):
                raise
            except Exception as error:
                raise EnvironmentFault(f"the environment cannot be made: {type(error).__name__}: {error}") from error
            try:
                async with asyncio.timeout(self.limits.episode_deadline) as scope:
                    return await episode.play(environment)
            except TimeoutError:
                if not scope.expired():
                    raise
                raise InfrastructureFault(
                    f"{episode.id} was not over within {self.limits.episode_deadline:g} s (episode_deadline): "
                    f"{len(episode.steps)} steps were taken and it waited for {episode.stage}."
                ) from None
            finally:
                cleaning = asyncio.create_task(self._clean(environment, episode.session))
                cancelled = await _endure(cleaning)
                if cancelled is not None:
                    raise cancelled

    async def _clean(self, environment: Environment, session: str) -> None:
        for what, call in (("environment", environment.close), ("session", lambda: self.player.forget(session))):
            try:
                async with asyncio.timeout(self.limits.close_deadline):
                    await call()
            except Exception as error:
                _LOG.warning("closing the %s of %s failed: %s", what, session, told(error))

    def _failed(self, task: Task, words: str) -> None:
        self._window.failed(task, words)
        verdict = self._window.verdict()
        if verdict is not None:
            self._stop(verdict)

    def _announce(self, trajectory: Trajectory) -> None:
        if self._on_trajectory is None:
            return
        try:
            self._on_trajectory(trajectory)
        except Exception as error:
            self._stop(error)

    def _stop(self, error: Exception) -> None:
        """End the run: nothing new is dispatched, and everything in flight is cancelled."""
        if self.failure is None:
            self.failure = error
            current = asyncio.current_task()
            for work in self._running:
                if work is not current:
                    work.cancel()


class GroupRollout:
    """One group's view of the rollout engine: it knows its name and what was already played."""

    def __init__(
        self,
        engine: RolloutEngine,
        name: str,
        recorded: Mapping[int, Trajectory],
        record: Callable[[Trajectory], Awaitable[None]] | None,
    ) -> None:
        self.name = name
        self._engine = engine
        self._recorded = recorded
        self._record = record
        self._episodes: dict[int, Episode] = {}
        self._ended: dict[int, Trajectory] = dict(recorded)

    async def episode(self, task: Task, member: int) -> Trajectory:
        if member in self._recorded:
            return self._recorded[member]
        return await self._engine.dispatch(task, member, self)

    @property
    def oldest_version(self) -> int | None:
        """Policy version of the oldest token that the group holds so far, or None where it has none."""
        playing = [episode.oldest_version for episode in self._episodes.values()]
        return min((v for v in [*playing, oldest_version(tuple(self._ended.values()))] if v is not None), default=None)

    def began(self, member: int, episode: Episode) -> None:
        self._episodes[member] = episode

    def ended(self, member: int, trajectory: Trajectory) -> None:
        self._episodes.pop(member, None)
        self._ended[member] = trajectory

    async def record(self, trajectory: Trajectory) -> None:
        if self._record is not None:
            await self._record(trajectory)


def oldest_version(trajectories: Sequence[Trajectory]) -> int | None:
    """Policy version of the oldest token that could be trained on; None where there is none."""
    return min(_versions(trajectories), default=None)


def _versions(trajectories: Sequence[Trajectory]) -> Iterator[int]:
    for trajectory in trajectories:
        if trajectory.status.trains:
            for step in trajectory.steps:
                if step.versions.size:
                    yield int(step.versions.min())


async def _outlast(work: asyncio.Task[Trajectory]) -> asyncio.CancelledError | None:
    """Wait for `work`; where the waiter is cancelled, cancel `work`, wait for its end and return the cancellation."""
    cancelled = None
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError as error:
            cancelled = error
            work.cancel()
    return cancelled


async def _endure(work: asyncio.Task[None]) -> asyncio.CancelledError | None:
    """Wait for `work`, which has deadlines of its own, through every cancellation; return the last of them."""
    cancelled = None
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled


def _attribution(error: Exception) -> tuple[Status, str]:
    kind = Status.ENVIRONMENT_ERROR if isinstance(error, EnvironmentFault) else Status.INFRASTRUCTURE_ERROR
    return kind, told(error)
