"""One episode: observe, decide, act, until something ends it.

Who decides is a `decisions.Player`; what the world does goes through `guard.GuardedWorld`. Limits, policy errors and
the record of every step are kept here, once for all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agentrl.errors import ConfigError, EnvironmentFault, InfrastructureFault
from agentrl.protocols import Environment
from agentrl.rollout.decisions import Decision, Insider, Player, Seat
from agentrl.rollout.forking import Arrival, Start, arrive
from agentrl.rollout.guard import GuardedWorld, within
from agentrl.rollout.limits import EpisodeLimits
from agentrl.types import JSON, Observation, Status, Step, StepResult, Task, Timings, Trajectory


def trajectory_id(group: str, member: int) -> str:
    return f"{group}-{member}"


def answered(decision: Decision, episode: str, previous: Step | None, shown: Observation) -> Step:
    """The step of `decision` on what was `shown`, before the world has said what came of it."""
    index = previous.index + 1 if previous else 0
    return Step(
        id=f"{episode}.{index}",
        index=index,
        previous=previous.id if previous else None,
        context=decision.context,
        prompt=decision.prompt,
        tokens=decision.tokens,
        logprobs=decision.logprobs,
        versions=decision.versions,
        action=decision.action,
        observation=shown,
        scores=decision.scores,
        finish=decision.finish,
        source=decision.source,
        seen=decision.seen,
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """What all episodes of a run share."""

    player: Player
    limits: EpisodeLimits
    seed: int = 0
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    "Requests at the engine at once."

    def __post_init__(self) -> None:
        if self.limits.max_tokens >= self.max_context:
            raise ConfigError(
                f"max_tokens is {self.limits.max_tokens}, which leaves no room for a prompt in a context of "
                f"{self.max_context} tokens. Lower it or raise max_context."
            )

    @property
    def max_context(self) -> int:
        allowed = self.limits.max_context
        return self.player.max_context if allowed is None else min(allowed, self.player.max_context)


_BEGINNING = Start()


class Episode:
    """One run in an environment. `start`, then `advance` until `status` is set; `record` works at any time."""

    def __init__(
        self,
        setting: Setting,
        task: Task,
        *,
        group: str,
        member: int,
        attempt: int = 0,
        start: Start = _BEGINNING,
    ) -> None:
        self.id = trajectory_id(group, member)
        self.task = task
        self.group = group
        self.attempt = attempt
        self.begins = start
        self.steps: list[Step] = list(start.shared)
        self.forks = sum(step.context is None and step.index > 0 for step in start.shared)
        self.arrival: Arrival = "reset"
        "How the world came to the beginning."
        self.status: Status | None = None
        self.observation: Observation | None = None
        self.oldest_version: int | None = None
        "Policy version of the oldest token sampled so far."
        self.stage = ""
        "What the episode waits for, in words."
        self.since = time.monotonic()
        self._setting = setting
        self._decider = setting.player.sit(
            Seat(
                self.id,
                self.session,
                setting.limits,
                setting.max_context,
                task.id,
                group,
                member,
                setting.seed,
                start.given,
                len(start.shared),
                start.demands.top_logprobs,
                start.line,
            )
        )
        self._world: GuardedWorld
        self._snapshot: JSON = None
        self._mistakes = 0
        for step in start.shared:
            self._note(step)
        self._clock = _Clock()
        self.enter("its start")

    @property
    def session(self) -> str:
        return f"{self.id}.{self.attempt}" if self.attempt else self.id

    def enter(self, stage: str) -> None:
        self.stage, self.since = stage, time.monotonic()

    async def play(self, environment: Environment) -> Trajectory:
        await self.start(environment)
        while self.status is None:
            await self.advance()
        return self.record(self.status)

    def record(self, status: Status, error: str = "") -> Trajectory:
        """What is known so far, as the terminal record with `status`."""
        return Trajectory(
            id=self.id,
            task=self.task,
            group=self.group,
            steps=tuple(self.steps),
            status=status,
            source=self.begins.source,
            forked_from=self.begins.shared[-1].id if self.begins.shared else None,
            forks=self.forks,
            attempt=self.attempt,
            error=error,
            final=self.observation,
            given=self.begins.given,
        )

    async def start(self, environment: Environment) -> None:
        """Bring `environment`, which stays the caller's to close, to where the episode begins."""
        self._world = GuardedWorld(environment, self.task, self._setting.limits, self.enter)
        self._clock = _Clock()
        self.observation, self.arrival = await arrive(self._world, self.begins)
        if isinstance(self._decider, Insider):
            self._decider.meet(environment, self.task)

    async def advance(self) -> None:
        """One step: a decision of the policy and what came back."""
        assert self.observation is not None
        shown, index = self.observation, len(self.steps)
        if not self._decider.prepare(self.steps, shown, self._world.tools):
            # The next prompt leaves no room for an answer.
            return await self._end(Status.TRUNCATED)
        if index and self.begins.demands.forks:
            self._snapshot = await self._world.snapshot()
        decision = await self._decide(index)
        result = await self._world.step(decision.action, shown, index)
        self._keep(index, shown, decision, result)
        self.observation = result.observation
        await self._judge(self.steps[-1])

    async def cut(self) -> Status:
        """Truncate the episode after the last step."""
        await self._end(Status.TRUNCATED)
        return Status.TRUNCATED

    async def _decide(self, index: int) -> Decision:
        setting, clock = self._setting, self._clock
        self.enter("an engine slot")
        began = time.monotonic()
        async with setting.slots:
            sent = time.monotonic()
            clock.waiting += sent - began
            self.enter("the model")
            decision = await within(
                setting.limits.generate_deadline,
                self._decider.decide(),
                lambda: InfrastructureFault(
                    f"the engine did not answer step {index} of {self.id} within "
                    f"{setting.limits.generate_deadline:g} s (generate_deadline)."
                ),
            )
            clock.model += time.monotonic() - sent
        self.forks += decision.context is None and index > 0
        return decision

    def _keep(self, index: int, shown: Observation, decision: Decision, result: StepResult) -> None:
        before = self.steps[-1] if self.steps else None
        step = replace(
            answered(decision, self.id, before, shown),
            reward=float(result.reward),
            scores={**result.scores, **decision.scores},
            terminated=result.terminated,
            truncated=result.truncated and not result.terminated,
            error=result.policy_error,
            timings=self._clock.taken(self._world),
            told=self.begins.told if index == len(self.begins.shared) else "",
            snapshot=self._snapshot,
        )
        self.steps.append(step)
        self._note(step)
        self._add(result.late)

    def _add(self, late: Mapping[int, float]) -> None:
        """Rewards of steps of this episode that came after them."""
        for index, reward in late.items():
            if not len(self.begins.shared) <= index < len(self.steps):
                raise EnvironmentFault(
                    f"the environment of task {self.task.id!r} rewards step {index}; the episode's own steps are "
                    f"{len(self.begins.shared)} to {len(self.steps) - 1}."
                )
            self.steps[index] = replace(self.steps[index], reward=self.steps[index].reward + float(reward))

    def _note(self, step: Step) -> None:
        self._mistakes = self._mistakes + 1 if step.error else 0
        if step.trains and step.versions.size:
            version = int(step.versions.min())
            self.oldest_version = version if self.oldest_version is None else min(version, self.oldest_version)

    async def _judge(self, step: Step) -> None:
        """Has the episode ended, and how?"""
        if step.terminated:
            self.status = Status.OK
        elif step.truncated:
            self.status = Status.TRUNCATED
        elif self._mistakes >= self._setting.limits.max_policy_errors:
            await self._end(Status.POLICY_ERROR)
        elif len(self.steps) >= self._world.max_steps:
            await self._end(Status.TRUNCATED)

    async def _end(self, status: Status) -> None:
        """End an episode that the environment did not end. Where the world cannot grade it, it is no success."""
        grade = await self._world.grade(self.steps[-1].index) or StepResult(Observation(()))
        self._add(grade.late)
        last = self.steps[-1]
        self.steps[-1] = replace(
            last,
            reward=last.reward + float(grade.reward),
            scores={"success": 0.0, **last.scores, **grade.scores},
            terminated=status is Status.POLICY_ERROR,
            truncated=status is Status.TRUNCATED,
        )
        self.status = status


class _Clock:
    """Seconds of the step in progress."""

    def __init__(self) -> None:
        self.started = time.time()
        self.waiting = self.model = 0.0

    def taken(self, world: GuardedWorld) -> Timings:
        timings = Timings(self.started, self.waiting, self.model, world.seconds)
        self.started = time.time()
        self.waiting = self.model = world.seconds = 0.0
        return timings
