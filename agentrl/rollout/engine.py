"""The rollout engine: one supervised asyncio task per episode, with slots, retries and one way out.

Every dispatched episode ends in exactly one terminal record, whatever happened to it; what a fault or a
cancellation cut short is never scored.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from agentrl.errors import ConfigError, EnvironmentFault, InfrastructureFault, TrainingError
from agentrl.protocols import Demands, Environment
from agentrl.rollout.decisions import Player, Seat
from agentrl.rollout.episode import Episode, Setting, trajectory_id
from agentrl.rollout.failures import FailureWindow
from agentrl.rollout.forking import NO_DEMANDS, Start
from agentrl.rollout.group import GroupRollout
from agentrl.rollout.guard import within
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.rollout.oracle import winning_line
from agentrl.rollout.rewarding import Judges, JudgesFailed, RewardTerm, told
from agentrl.types import Action, Group, Message, Observation, Settlement, Status, Task, Trajectory

_LOG = logging.getLogger("agentrl.rollout")


class RolloutEngine:
    """Plays episodes within its limits; implements `protocols.Episodes`. Use it with `async with`."""

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
        self.forks: Counter[str] = Counter()
        "Forked episodes by how their world came to the fork, since this was last emptied."
        self.seed = seed
        self._last_end = time.monotonic()
        self._setting = Setting(player, self.limits, seed, asyncio.Semaphore(self.supervision.engine_slots))
        self._environment = environment
        self._judges = Judges(rewards, self.limits.reward_deadline, self.supervision)
        self.unscored = self._judges.unscored
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
        demands: Demands = NO_DEMANDS,
        recall: Callable[[str], Trajectory] | None = None,
    ) -> GroupRollout:
        """The engine as the strategy of one group sees it, which asks for `demands`.

        Members in `recorded` are given back without being played; `record` is awaited with every other record,
        except cancelled ones, before the strategy sees it. `recall` reads a trajectory of an earlier group; it blocks.
        """
        return GroupRollout(self, name, recorded or {}, record, demands, recall)

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

    async def dispatch(self, task: Task, member: int, group: GroupRollout, start: Start) -> Trajectory:
        """Play one episode from `start` in a task of its own. Raises only what stops the run."""
        self.check()
        if not self._open:
            raise TrainingError(f"the rollout engine is closed; task {task.id!r} cannot be played.")
        work = asyncio.create_task(self._supervise(task, member, group, start), name=trajectory_id(group.name, member))
        self._running.add(work)
        try:
            cancelled = await _outlast(work, work.cancel)
        finally:
            self._running.discard(work)
        if work.cancelled():
            # Cancelled before its first line ran, so it could not make its own record.
            unborn = Episode(self._setting, task, group=group.name, member=member, start=start)
            trajectory = unborn.record(Status.CANCELLED, "cancelled before it began")
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

    async def settle(self, group: Group, known: Settlement | None) -> tuple[Group, Settlement | None]:
        """As `Judges.settle`."""
        return await self._judges.settle(group, known)

    async def ask(self, messages: Sequence[Message], member: int, group: str) -> str:
        """The policy's answer outside of any episode. Raises `InfrastructureFault` after as many tries as allowed."""
        self.check()
        limits, player = self.limits, self.player
        name = f"{group}-{member}-asked"
        for attempt in range(self.supervision.attempts):
            seat = Seat(name, name, limits, self._setting.max_context, name, group, member, self.seed)
            decider = player.sit(seat)
            try:
                decider.prepare((), Observation(tuple(messages)), ())
                async with self._setting.slots:
                    decision = await within(
                        limits.generate_deadline,
                        decider.decide(),
                        lambda: InfrastructureFault(
                            f"the engine did not answer {name} within {limits.generate_deadline:g} s "
                            "(generate_deadline)."
                        ),
                    )
                return decision.action.text or decision.action.error
            except EnvironmentFault as error:
                raise InfrastructureFault(f"what {name} was to be asked does not fit the context: {error}") from error
            except InfrastructureFault:
                if attempt + 1 == self.supervision.attempts:
                    raise
                await asyncio.sleep(self.supervision.backoff * 2**attempt)
            finally:
                await player.forget(name)
        raise AssertionError("unreachable")

    async def winning_line(self, task: Task) -> tuple[Action, ...]:
        """What the environment's oracle plays, in an environment of its own; see `oracle.winning_line`."""
        self.check()
        async with self._places:
            environment = self._environment()
            try:
                return await winning_line(environment, task, self.limits)
            finally:
                cancelled = await _outlast(asyncio.create_task(self._clean(environment, "")))
                if cancelled is not None:
                    raise cancelled

    async def _supervise(self, task: Task, member: int, group: GroupRollout, start: Start) -> Trajectory:
        """Attempt the episode until it ends without a fault, or the attempts are spent."""
        attempt = 0
        while True:
            episode = Episode(self._setting, task, group=group.name, member=member, attempt=attempt, start=start)
            self._live[id(episode)] = episode
            group.began(member, episode)
            try:
                trajectory = await self._judges.score(await self._attempt(episode), episode.enter)
            except asyncio.CancelledError:
                return episode.record(Status.CANCELLED, f"cancelled while it waited for {episode.stage}")
            except ConfigError as error:
                # No other try can help: the recipe asks for what the engine or the environment does not have.
                self._stop(error)
                return episode.record(Status.INFRASTRUCTURE_ERROR, told(error))
            except Exception as error:
                status, words = _attribution(error)
                self._failed(task, words)
                attempt += 1
                spent = attempt >= self.supervision.attempts or isinstance(error, JudgesFailed)
                if spent or self.failure is not None:
                    return episode.record(status, words)
            else:
                self._window.passed()
                if start.shared:
                    self.forks[episode.arrival] += 1
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
                # It has deadlines of its own.
                cancelled = await _outlast(cleaning)
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


async def _outlast(
    work: asyncio.Task[Any], cancel: Callable[[], object] = lambda: None
) -> asyncio.CancelledError | None:
    """Wait for `work` to end through every cancellation, at each of which `cancel` is called; return the last one."""
    cancelled = None
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError as error:
            cancelled = error
            cancel()
    return cancelled


def _attribution(error: Exception) -> tuple[Status, str]:
    kind = Status.ENVIRONMENT_ERROR if isinstance(error, EnvironmentFault) else Status.INFRASTRUCTURE_ERROR
    return kind, told(error)
