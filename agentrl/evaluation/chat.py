"""Plays episodes with an engine that is given messages and returns no tokens: a chat API, to be measured.

Its trajectories hold empty token arrays, so nothing can be trained on them; what a fault cut short is never scored.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from types import TracebackType
from typing import Self, TypeVar

import numpy as np

from agentrl.errors import ConfigError, EnvironmentFault, InfrastructureFault
from agentrl.protocols import ChatEngine, ChatReply, ContextPolicy, Environment
from agentrl.types import (
    Action,
    Finish,
    Message,
    Observation,
    SamplingParams,
    Status,
    Step,
    StepResult,
    Task,
    Timings,
    ToolSpec,
    Trajectory,
    token_ids,
)

T = TypeVar("T")

_LOG = logging.getLogger("agentrl.evaluation")
_MAX_STEPS = 64
_GRACE = 5.0
"Seconds that an environment with deadlines of its own has to report them before ours cuts it."


@dataclass(frozen=True, slots=True)
class ChatLimits:
    """How an episode is sampled, where it is cut, and how often a fault is retried. Deadlines are in seconds."""

    max_steps: int | None = None
    "Actions per episode. The environment's own `max_steps` applies too; 64 where neither says anything."
    max_tokens: int = 256
    "Sampled tokens per step."
    max_context: int | None = None
    "Prompt and answer of a step together; the engine's where None, and never more than the engine's."
    temperature: float = 1.0
    max_policy_errors: int = 4
    "The episode ends with status policy_error at this many policy errors in a row."
    concurrency: int = 16
    "Episodes at once, each with one environment and at most one request."
    attempts: int = 3
    "Tries of one episode, each in a fresh environment with the same task and seed."
    backoff: float = 0.5
    "Seconds before the second try after a failed request, doubled each time. Environments retry at once."
    reset_deadline: float = 120.0
    "Where the environment names no deadline of its own."
    step_deadline: float = 120.0
    "Where the environment names no deadline of its own."
    reply_deadline: float = 600.0
    "One answer of the engine, with the retries that it makes itself."
    episode_deadline: float = 3600.0
    close_deadline: float = 40.0

    def __post_init__(self) -> None:
        for name in ("max_steps", "max_tokens", "max_context", "max_policy_errors", "concurrency", "attempts"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; at least 1 is needed.")
        for name in ("temperature", "backoff"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; allowed is 0 and above.")
        for field in fields(self):
            if field.name.endswith("_deadline") and not getattr(self, field.name) > 0:
                raise ConfigError(f"{field.name} is {getattr(self, field.name)} s; a deadline is above 0.")


class ChatRollout:
    """Implements `protocols.Rollout` for a `ChatEngine`. Use it with `async with`: leaving ends every episode."""

    def __init__(
        self,
        environment: Callable[[], Environment],
        engine: ChatEngine,
        *,
        limits: ChatLimits | None = None,
        context: ContextPolicy | None = None,
        seed: int = 0,
    ) -> None:
        """`context` None shows the whole episode in every request."""
        self.limits = limits or ChatLimits()
        self.max_context = min(engine.max_context, self.limits.max_context or engine.max_context)
        if self.limits.max_tokens >= self.max_context:
            raise ConfigError(
                f"max_tokens is {self.limits.max_tokens}, which leaves no room for a prompt in a context of "
                f"{self.max_context} tokens. Lower it or raise max_context."
            )
        self.engine = engine
        self.context = context
        self.seed = seed
        self._environment = environment
        self._places = asyncio.Semaphore(self.limits.concurrency)
        self._running: set[asyncio.Task[Trajectory]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for work in self._running:
            work.cancel()
        while self._running:
            await asyncio.wait(set(self._running))

    async def episode(self, task: Task, member: int) -> Trajectory:
        """Play one whole episode. Raises nothing but the cancellation of its caller."""
        # A task of its own, so that closing the rollout can wait for environments whose callers gave up.
        work = asyncio.create_task(self._supervised(task, member), name=f"{task.id}-{member}")
        self._running.add(work)
        work.add_done_callback(self._running.discard)
        try:
            return await work
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is None or current.cancelling():
                raise
            return _Episode(self, task, member, 0).record(Status.CANCELLED, "the rollout was closed")

    async def _supervised(self, task: Task, member: int) -> Trajectory:
        """Attempt the episode until it ends without a fault, or the attempts are spent."""
        attempt = 0
        while True:
            episode = _Episode(self, task, member, attempt)
            try:
                return await self._attempt(episode)
            except Exception as error:
                ours = not isinstance(error, EnvironmentFault)
                attempt += 1
                if attempt >= self.limits.attempts:
                    status = Status.INFRASTRUCTURE_ERROR if ours else Status.ENVIRONMENT_ERROR
                    return episode.record(status, f"{type(error).__name__}: {error}")
            if ours:
                await asyncio.sleep(self.limits.backoff * 2 ** (attempt - 1))

    async def _attempt(self, episode: _Episode) -> Trajectory:
        """One try in a fresh environment, which is closed before its place is given back."""
        async with self._places:
            with _blamed("making the environment"):
                environment = self._environment()
            try:
                async with asyncio.timeout(self.limits.episode_deadline) as scope:
                    return await episode.play(environment)
            except TimeoutError:
                if not scope.expired():
                    raise
                raise InfrastructureFault(
                    f"{episode.id} was not over within {self.limits.episode_deadline:g} s (episode_deadline); "
                    f"{len(episode.steps)} steps were taken."
                ) from None
            finally:
                await _endure(asyncio.create_task(self._close(environment, episode.id)))

    async def _close(self, environment: Environment, name: str) -> None:
        try:
            async with asyncio.timeout(self.limits.close_deadline):
                await environment.close()
        except Exception as error:
            _LOG.warning("closing the environment of %s failed: %s: %s", name, type(error).__name__, error)


class _Episode:
    """One try: the messages so far, and the steps that they led to."""

    def __init__(self, rollout: ChatRollout, task: Task, member: int, attempt: int) -> None:
        self.id = f"{task.id}-{member}"
        self.steps: list[Step] = []
        self._rollout = rollout
        self._limits = rollout.limits
        self._task = task
        self._member = member
        self._attempt = attempt
        self._status: Status | None = None
        self._final: Observation | None = None
        self._environment: Environment
        self._tools: tuple[ToolSpec, ...] = ()
        self._max_steps = rollout.limits.max_steps or _MAX_STEPS
        self._messages: list[Message] = []
        self._counted = 0
        "Tokens of the context so far as the server counted them; what it was not sent yet is not in it."
        self._forks = 0
        self._mistakes = 0

    def record(self, status: Status, error: str = "") -> Trajectory:
        return Trajectory(
            id=self.id,
            task=self._task,
            group=self._task.id,
            steps=tuple(self.steps),
            status=status,
            forks=self._forks,
            attempt=self._attempt,
            error=error,
            final=self._final,
        )

    async def play(self, environment: Environment) -> Trajectory:
        """Reset `environment`, which stays the caller's to close, and act until something ends the episode."""
        self._environment = environment
        own: int | None = getattr(environment, "max_steps", None)
        if own is not None:
            self._max_steps = min(own, self._limits.max_steps or own)
            # An environment with a limit grades where it truncates: let it do so at ours.
            environment.max_steps = self._max_steps  # type: ignore[attr-defined]
        shown = await self._world("reset", environment.reset(self._task), self._limits.reset_deadline)
        self._read_tools()
        while self._status is None:
            shown = self._final = await self._advance(shown)
        return self.record(self._status)

    async def _advance(self, shown: Observation) -> Observation:
        """One step: a decision of the model and what came back."""
        context = self._extend(shown)
        # What is shown now is not counted yet, and it is at least one token.
        if self._counted + self._limits.max_tokens >= self._rollout.max_context:
            self._end(Status.TRUNCATED, truncated=True)
            return shown
        started, began, index = time.time(), time.monotonic(), len(self.steps)
        reply = await self._reply(index)
        replied = time.monotonic()
        action = _checked(reply)
        result = await self._act(action, shown)
        usage = reply.usage
        step = Step(
            id=f"{self.id}.{index}",
            index=index,
            previous=self.steps[-1].id if self.steps else None,
            context=context,
            prompt=token_ids([]),
            tokens=token_ids([]),
            logprobs=np.zeros(0, np.float32),
            versions=token_ids([]),
            action=action,
            observation=shown,
            reward=float(result.reward),
            scores={
                **result.scores,
                "prompt_tokens": float(usage.prompt_tokens),
                "completion_tokens": float(usage.completion_tokens),
            },
            terminated=result.terminated,
            truncated=result.truncated and not result.terminated,
            error=result.policy_error,
            finish=reply.finish,
            timings=Timings(started, model=replied - began, environment=time.monotonic() - replied),
        )
        self._messages.append(action.message())
        self._counted = usage.prompt_tokens + usage.completion_tokens
        self.steps.append(step)
        self._judge(step)
        if self._status is None:
            self._read_tools()
        return result.observation

    def _extend(self, shown: Observation) -> str | None:
        """Add `shown` to the messages; the step that they go on from, None where the context policy began anew."""
        policy = self._rollout.context
        rewritten = policy.rewrite(self.steps, shown) if policy is not None else None
        if rewritten is None:
            self._messages += shown.messages
            return self.steps[-1].id if self.steps else None
        self._messages, self._counted = list(rewritten), 0
        self._forks += bool(self.steps)
        return None

    async def _reply(self, index: int) -> ChatReply:
        limits = self._limits
        place = f"{self._rollout.seed}\x1f{self._task.id}\x1f{self._member}\x1f{index}"
        # Some servers take a seed of 31 bits only.
        seed = int.from_bytes(blake2b(place.encode(), digest_size=4).digest(), "big") >> 1
        sampling = SamplingParams(limits.max_tokens, limits.temperature, seed)
        reply = await _within(
            limits.reply_deadline,
            self._rollout.engine.chat(tuple(self._messages), self._tools, sampling),
            InfrastructureFault(
                f"the engine did not answer step {index} of {self.id} within {limits.reply_deadline:g} s "
                "(reply_deadline)."
            ),
        )
        if reply.finish is Finish.ABORT:
            raise InfrastructureFault(f"the engine broke its answer to step {index} of {self.id} off.")
        return reply

    async def _act(self, action: Action, shown: Observation) -> StepResult:
        # An adapted `Env` (it has `.author`) tells the model its mistakes itself and counts and grades the step.
        if action.error and not hasattr(self._environment, "author"):
            told = Observation((Message("user", action.error),), state_key=shown.state_key)
            return StepResult(told, policy_error=action.error)
        result = await self._world("step", self._environment.step(action), self._limits.step_deadline)
        if not math.isfinite(result.reward):
            raise EnvironmentFault(
                f"the environment of task {self._task.id!r} returned reward {result.reward} at step "
                f"{len(self.steps)}; a reward is a finite number."
            )
        return result

    async def _world(self, verb: str, call: Awaitable[T], deadline: float) -> T:
        own: float | None = getattr(self._environment, f"{verb}_deadline", None)
        seconds = deadline if own is None else own + _GRACE
        what = f"{verb} of task {self._task.id!r}"
        late = EnvironmentFault(f"{what} did not come back within {seconds:g} s ({verb}_deadline).")
        with _blamed(what):
            return await _within(seconds, call, late)

    def _read_tools(self) -> None:
        with _blamed(f"tools of task {self._task.id!r}"):
            self._tools = tuple(self._environment.tools())

    def _judge(self, step: Step) -> None:
        """Has the episode ended, and how?"""
        self._mistakes = self._mistakes + 1 if step.error else 0
        if step.terminated:
            self._status = Status.OK
        elif step.truncated:
            self._status = Status.TRUNCATED
        elif self._mistakes >= self._limits.max_policy_errors:
            self._end(Status.POLICY_ERROR, terminated=True)
        elif len(self.steps) >= self._max_steps:
            self._end(Status.TRUNCATED, truncated=True)

    def _end(self, status: Status, *, terminated: bool = False, truncated: bool = False) -> None:
        """End an episode that the environment did not end: it was not graded, so it is no success."""
        last = self.steps[-1]
        ended = replace(last, terminated=terminated, truncated=truncated, scores={"success": 0.0, **last.scores})
        self.steps[-1] = ended
        self._status = status


def _checked(reply: ChatReply) -> Action:
    """The action; an answer in words that was cut off is a mistake that the model is told about."""
    action = reply.action
    if reply.finish is Finish.LENGTH and not action.tool_calls and not action.error:
        return replace(action, error="Your answer was cut off because it was too long. Answer more briefly.")
    return action


@contextmanager
def _blamed(what: str) -> Iterator[None]:
    """Whatever the environment raises becomes an `EnvironmentFault`."""
    try:
        yield
    except (EnvironmentFault, InfrastructureFault):
        raise
    except Exception as error:
        raise EnvironmentFault(f"{what} raised {type(error).__name__}: {error}") from error


async def _within(seconds: float, call: Awaitable[T], late: Exception) -> T:
    """Await `call`; raise `late` where it takes longer than `seconds`."""
    try:
        async with asyncio.timeout(seconds) as scope:
            return await call
    except TimeoutError:
        if scope.expired():
            raise late from None
        raise


async def _endure(work: asyncio.Task[None]) -> None:
    """Wait for `work`, which has a deadline of its own, through every cancellation; raise the last of them then."""
    cancelled = None
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
