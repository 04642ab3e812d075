"""Plays a suite: every attempt once, as many at a time as asked for, until all are played or a bound is reached.

Which attempts are played depends on their place only, never on which ended first: an evaluation that was killed and
continued says what one that was left alone would have said.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from agentrl.errors import ConfigError, InfrastructureFault
from agentrl.evaluation.attempts import by_task
from agentrl.evaluation.folder import EvaluationFolder, Play
from agentrl.evaluation.result import Conditions, EvaluationResult, NullRow, Prices
from agentrl.evaluation.statistics import Interval, score_interval
from agentrl.evaluation.suite import Suite
from agentrl.rollout.decisions import Player
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.types import Status, Task

EVALUATION_SEED = 1_000_003
"Evaluations sample with seeds of their own."
BLOCK = 64
"Attempts between two looks at the interval."
PATIENCE = 16
"Faults of infrastructure in a row, at least, that end an evaluation: the server is gone."
INTERRUPTED = "it was interrupted"

Come = Callable[[AsyncExitStack], Awaitable[Player]]
"Starts the policy, which the stack ends."


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be played, and what ends it early."""

    tasks: tuple[Task, ...]
    attempts: int = 1
    "Of each task, at most."
    concurrency: int = 16
    until_ci: float | None = None
    "Half the width of the 95 % interval at which it is narrow enough."
    max_seconds: float | None = None
    "After this nothing new is begun; what is under way is finished."
    max_cost: float | None = None
    "As `max_seconds`, for the cost of everything in the folder."
    retries: int = 2
    "Fresh tries of an episode that a fault ended."
    episode_deadline: float | None = None
    "Seconds, in place of the suite's: for a person."

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.concurrency < 1:
            raise ConfigError(
                f"attempts is {self.attempts} and concurrency {self.concurrency}; each must be 1 or more. Raise it."
            )
        if self.until_ci is not None and not 0 < self.until_ci < 0.5:
            raise ConfigError(f"until-ci is {self.until_ci:g}: half the width of the interval, above 0 and below 0.5.")

    def plays(self) -> list[Play]:
        """Every task once before any is tried again, in an order that knows nothing of how hard they are."""
        shuffled = sorted(self.tasks, key=lambda task: hashlib.sha256(task.id.encode()).digest())
        return [(task, number) for number in range(self.attempts) for task in shuffled]

    def blocks(self) -> Iterator[list[Play]]:
        plays = self.plays()
        size = len(plays) if self.until_ci is None else BLOCK
        for start in range(0, len(plays), size):
            yield plays[start : start + size]


class SuiteRun:
    """One sitting of an evaluation. `folder` is open, and stays the caller's to close; `watch` sees who plays."""

    def __init__(
        self,
        suite: Suite,
        come: Come,
        folder: EvaluationFolder,
        plan: Plan,
        conditions: Conditions,
        prices: Prices,
        watch: Callable[[RolloutEngine], object],
    ) -> None:
        self.plan = plan
        self.suite = suite
        self.done = 0
        "Attempts that ended in this sitting."
        self.left = 0
        "Attempts that are still to be played."
        self._come, self._folder, self._watch = come, folder, watch
        self._conditions, self._prices = conditions, prices
        self._began = time.monotonic()
        self._faults = 0
        self._over = ""

    async def play(self, tell: Callable[[SuiteRun], None]) -> str:
        """Play what is open; `tell` is called after every attempt. Returns why it ended early, if it did.

        Raises `InfrastructureFault` where one fault follows another, `ConfigError` where no episode can be played.
        """
        plan, folder = self.plan, self._folder
        self.left = len(folder.open(plan.plays()))
        seen: list[Play] = []
        async with AsyncExitStack() as stack:
            rollout: RolloutEngine | None = None
            for block in plan.blocks():
                if open_plays := folder.open(block):
                    if rollout is None:
                        rollout = await self._rollout(stack)
                        folder.issue(plan.plays())
                    await self._play(rollout, open_plays, tell)
                if self._over:
                    return self._over
                seen += block
                if plan.until_ci is not None and (half := self._half_width(seen)) <= plan.until_ci:
                    return f"the interval is ±{half:.3f}, as narrow as asked for (±{plan.until_ci:g})"
        if plan.until_ci is not None:
            return f"everything was played and the interval is ±{half:.3f}; asked for was ±{plan.until_ci:g}"
        return ""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def cost(self) -> float:
        return sum(map(self._prices.of, self._folder.attempts.values()))

    def _half_width(self, plays: Sequence[Play]) -> float:
        """Of the interval over `plays`; the widest there is where none was scored."""
        wanted = {(task.id, number) for task, number in plays}
        scores = by_task([a for key, a in self._folder.attempts.items() if key in wanted], lambda a: a.score)
        found = score_interval(scores) if scores else Interval(0.5, 0.0, 1.0, 0)
        return (found.high - found.low) / 2

    async def _rollout(self, stack: AsyncExitStack) -> RolloutEngine:
        limits, plan = self.suite.limits, self.plan
        deadline = limits.episode_deadline if plan.episode_deadline is None else plan.episode_deadline
        rollout = RolloutEngine(
            self.suite.world,
            await self._come(stack),
            limits=EpisodeLimits(
                max_steps=limits.max_steps,
                max_tokens=self._conditions.max_tokens,
                max_context=limits.max_context,
                temperature=self._conditions.temperature,
                episode_deadline=deadline,
                generate_deadline=deadline,
            ),
            # What fails is told by the result, and by the rule of faults in a row.
            supervision=Supervision(
                environment_slots=plan.concurrency,
                engine_slots=plan.concurrency,
                attempts=plan.retries + 1,
                failure_bound=1.0,
            ),
            seed=self._conditions.seed + EVALUATION_SEED,
        )
        self._watch(rollout)
        return await stack.enter_async_context(rollout)

    async def _play(self, rollout: RolloutEngine, plays: Sequence[Play], tell: Callable[[SuiteRun], None]) -> None:
        queue = iter(plays)

        async def work() -> None:
            for task, number in queue:
                if self._bounded():
                    return
                trajectory = await rollout.group(task.id, record=self._folder.record).episode(task, number)
                self.done, self.left = self.done + 1, self.left - 1
                self._faults = self._faults + 1 if trajectory.status is Status.INFRASTRUCTURE_ERROR else 0
                if self._faults >= max(PATIENCE, 2 * self.plan.concurrency):
                    raise InfrastructureFault(
                        f"{self._faults} episodes in a row ended in a fault; the last one: {trajectory.error}. "
                        "What was played is kept, and the same command goes on from there."
                    )
                tell(self)

        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(self.plan.concurrency, len(plays))):
                    workers.create_task(work())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    def _bounded(self) -> bool:
        plan = self.plan
        if plan.max_seconds is not None and self.seconds >= plan.max_seconds:
            self._over = f"{plan.max_seconds:g} s are over (max-seconds)"
        elif plan.max_cost is not None and self.cost >= plan.max_cost:
            self._over = f"it cost {self.cost:.4g}, and {plan.max_cost:g} is the most (max-cost)"
        return bool(self._over)


def null_row(null: EvaluationResult, tasks: Sequence[str]) -> NullRow | None:
    """What the null policy did on `tasks`; None where it could not play one of them."""
    wanted = set(tasks)
    own = [attempt for attempt in null.attempts if attempt.task in wanted and attempt.scored]
    if not own:
        return None
    return NullRow(score_interval(by_task(own, lambda a: a.score)), sum(a.reward for a in own) / len(own))
