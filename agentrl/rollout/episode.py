"""One episode: reset, then render, sample, parse and act until the environment or a limit ends it.

The prompt that is sent is always the concatenation of the deltas that the records hold; it is checked before it is
sent.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Protocol, TypeVar

import numpy as np

from agentrl.errors import EnvironmentFault, InfrastructureFault, InvalidDataError
from agentrl.protocols import ContextPolicy, Environment, GenerateRequest, Renderer
from agentrl.rollout.context import history
from agentrl.rollout.limits import EpisodeLimits
from agentrl.types import (
    Action,
    Completion,
    Finish,
    Message,
    Observation,
    SamplingParams,
    Source,
    Status,
    Step,
    StepResult,
    Task,
    Timings,
    TokenIds,
    ToolSpec,
    Trajectory,
    token_ids,
)

T = TypeVar("T")

_MAX_STEPS = 64
_GRACE = 5.0
"Seconds that an environment with deadlines of its own has to report them before ours cuts it."


def sampling_seed(seed: int, group: str, task: str, member: int, index: int) -> int:
    """The sampler's seed for one step: 48 bits that depend on nothing but the place of the step in the run.

    Attempts are left out on purpose: a retry after a passing fault, or after a resume, repeats the same numbers.
    """
    place = "\x1f".join((str(seed), group, task, str(member), str(index)))
    return int.from_bytes(blake2b(place.encode(), digest_size=6).digest(), "big")


def trajectory_id(group: str, member: int) -> str:
    return f"{group}-{member}"


class Sampler(Protocol):
    """The part of an engine that an episode needs."""

    @property
    def max_context(self) -> int: ...

    async def generate(self, request: GenerateRequest) -> Completion: ...


@dataclass(frozen=True, slots=True)
class Player:
    """Who plays: what all episodes of a run share."""

    engine: Sampler
    renderer: Renderer
    context: ContextPolicy
    limits: EpisodeLimits
    seed: int = 0
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    "Requests at the engine at once."

    @property
    def max_context(self) -> int:
        allowed = self.limits.max_context
        return self.engine.max_context if allowed is None else min(allowed, self.engine.max_context)


class Episode:
    """One run in an environment. `start`, then `advance` until `status` is set; `record` works at any time."""

    def __init__(
        self, player: Player, task: Task, *, group: str, member: int, attempt: int = 0, source: Source = Source.POLICY
    ) -> None:
        self.id = trajectory_id(group, member)
        self.player = player
        self.task = task
        self.group = group
        self.member = member
        self.attempt = attempt
        self.source = source
        self.steps: list[Step] = []
        self.forks = 0
        self.status: Status | None = None
        self.observation: Observation | None = None
        self.stage = ""
        "What the episode waits for, in words."
        self.since = time.monotonic()
        self._environment: Environment
        self._tools: tuple[ToolSpec, ...] = ()
        self._max_steps = player.limits.max_steps or _MAX_STEPS
        self._chain: list[Step] = []
        self._tokens: TokenIds = token_ids([])
        self._mistakes = 0
        self._clock = _Clock()
        self.enter("its start")

    @property
    def session(self) -> str:
        return f"{self.id}.{self.attempt}" if self.attempt else self.id

    @property
    def oldest_version(self) -> int | None:
        """Policy version of the oldest token sampled so far."""
        return min((int(step.versions.min()) for step in self.steps), default=None)

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
            source=self.source,
            forks=self.forks,
            attempt=self.attempt,
            error=error,
            final=self.observation,
        )

    async def start(self, environment: Environment) -> None:
        """Reset `environment`, which stays the caller's to close."""
        self._environment = environment
        own: int | None = getattr(environment, "max_steps", None)
        ours = self.player.limits.max_steps
        if own is not None:
            self._max_steps = own if ours is None else min(own, ours)
            # An environment with a limit grades where it truncates: let it do so at ours.
            environment.max_steps = self._max_steps  # type: ignore[attr-defined]
        self._clock = _Clock()
        self.observation = self._checked(
            await self._world("reset", environment.reset(self.task), self.player.limits.reset_deadline)
        )
        self._tools = tuple(environment.tools())

    async def advance(self) -> None:
        """One step: a decision of the policy and what came back."""
        assert self.observation is not None
        context, delta = self._prompt(self.observation)
        prompt = np.concatenate([self._tokens, delta]) if context is not None else delta
        limits = self.player.limits
        if len(prompt) + limits.max_tokens > self.player.max_context:
            return self._full(len(prompt))
        self._check_deltas(prompt, delta)
        index = len(self.steps)
        self.forks += context is None and index > 0
        completion = await self._sample(prompt, index)
        tokens = token_ids(completion.tokens)
        action = self._parsed(tokens, completion.finish)
        shown, tools = self.observation, self._tools
        result = await self._act(action)
        step = Step(
            id=f"{self.id}.{index}",
            index=index,
            previous=self.steps[-1].id if self.steps else None,
            context=context,
            prompt=delta,
            tokens=tokens,
            logprobs=completion.logprobs.astype(np.float32, copy=False),
            versions=token_ids(completion.versions),
            action=action,
            observation=shown,
            reward=float(result.reward),
            scores=dict(result.scores),
            terminated=result.terminated,
            truncated=result.truncated and not result.terminated,
            error=result.policy_error,
            finish=completion.finish,
            timings=self._clock.taken(),
        )
        self._tokens = np.concatenate([prompt, tokens])
        self._chain.append(step)
        self.steps.append(step)
        self.observation = result.observation
        self._tools = tuple(self._environment.tools()) if not (step.terminated or step.truncated) else tools
        self._judge(step)

    def cut(self) -> Status:
        """Truncate the episode after the last step."""
        self._end(Status.TRUNCATED, truncated=True)
        return Status.TRUNCATED

    def _judge(self, step: Step) -> None:
        """Has the episode ended, and how?"""
        self._mistakes = self._mistakes + 1 if step.error else 0
        if step.terminated:
            self.status = Status.OK
        elif step.truncated:
            self.status = Status.TRUNCATED
        elif self._mistakes >= self.player.limits.max_policy_errors:
            self._end(Status.POLICY_ERROR, terminated=True)
        elif len(self.steps) >= self._max_steps:
            self._end(Status.TRUNCATED, truncated=True)

    def _end(self, status: Status, *, terminated: bool = False, truncated: bool = False) -> None:
        """End an episode that the environment did not end: it was not graded, so it is no success."""
        last = self.steps[-1]
        ended = replace(last, terminated=terminated, truncated=truncated, scores={"success": 0.0, **last.scores})
        self.steps[-1] = ended
        self.status = status

    def _full(self, length: int) -> None:
        """The next prompt leaves no room for an answer."""
        if self.steps:
            return self._end(Status.TRUNCATED, truncated=True)
        raise EnvironmentFault(
            f"the first prompt of task {self.task.id!r} has {length} tokens; with {self.player.limits.max_tokens} for "
            f"the answer it does not fit into a context of {self.player.max_context}. Shorten what `reset` shows or "
            "raise max_context."
        )

    def _prompt(self, observation: Observation) -> tuple[str | None, TokenIds]:
        """The step whose tokens the next prompt extends (None for a new context), and the ids to add."""
        renderer = self.player.renderer
        messages = self.player.context.rewrite(self.steps, observation)
        if messages is None and self._chain:
            delta = renderer.extend(self._tokens, observation.messages, self._tools)
            if delta is not None:
                return self._chain[-1].id, token_ids(delta)
            messages = history(self.steps, observation)
        self._chain, self._tokens = [], token_ids([])
        return None, token_ids(renderer.render(observation.messages if messages is None else messages, self._tools))

    def _check_deltas(self, prompt: TokenIds, delta: TokenIds) -> None:
        recorded = [part for step in self._chain for part in (step.prompt, step.tokens)]
        if not np.array_equal(prompt, np.concatenate([*recorded, delta])):
            raise InvalidDataError(
                f"the prompt of step {len(self.steps)} of {self.id} is not the concatenation of its recorded deltas: "
                "an engine or a renderer changed token arrays in place. Return new arrays."
            )

    async def _sample(self, prompt: TokenIds, index: int) -> Completion:
        player, limits = self.player, self.player.limits
        sampling = SamplingParams(
            max_tokens=limits.max_tokens,
            temperature=limits.temperature,
            seed=sampling_seed(player.seed, self.group, self.task.id, self.member, index),
            stop_token_ids=player.renderer.stop_token_ids,
        )
        self.enter("an engine slot")
        began = time.monotonic()
        async with player.slots:
            self._clock.waiting += time.monotonic() - began
            self.enter("the model")
            began = time.monotonic()
            request = GenerateRequest(prompt, sampling, self.session)
            completion = await _within(
                limits.generate_deadline,
                player.engine.generate(request),
                InfrastructureFault(
                    f"the engine did not answer step {index} of {self.id} within {limits.generate_deadline:g} s "
                    "(generate_deadline)."
                ),
            )
            self._clock.model += time.monotonic() - began
        if completion.finish is Finish.ABORT or not len(completion.tokens):
            raise InfrastructureFault(
                f"the engine returned {len(completion.tokens)} tokens and finish {completion.finish.value!r} for "
                f"step {index} of {self.id}."
            )
        if not np.isfinite(completion.logprobs).all():
            raise InfrastructureFault(f"the engine returned a log-probability that is not finite for {self.id}.")
        return completion

    def _parsed(self, tokens: TokenIds, finish: Finish) -> Action:
        action = self.player.renderer.parse(tokens, self._tools)
        if finish is Finish.LENGTH and not action.tool_calls and not action.error:
            told = f"Your answer was cut off at {len(tokens)} tokens. Answer more briefly."
            return replace(action, error=told)
        return action

    async def _act(self, action: Action) -> StepResult:
        assert self.observation is not None
        # An adapted `Env` (it has `.author`) tells the model its mistakes itself and counts and grades the step.
        if action.error and not hasattr(self._environment, "author"):
            told = Observation((Message("user", action.error),), state_key=self.observation.state_key)
            return StepResult(told, policy_error=action.error)
        result = await self._world("step", self._environment.step(action), self.player.limits.step_deadline)
        self._checked(result.observation)
        if not math.isfinite(result.reward):
            raise EnvironmentFault(
                f"the environment of task {self.task.id!r} returned reward {result.reward} at step "
                f"{len(self.steps)}; a reward is a finite number."
            )
        return result

    async def _world(self, verb: str, call: Awaitable[T], deadline: float) -> T:
        """Await the environment. Raises `EnvironmentFault` for whatever goes wrong in it."""
        own: float | None = getattr(self._environment, f"{verb}_deadline", None)
        seconds = deadline if own is None else own + _GRACE
        self.enter(f"the environment's {verb}")
        began = time.monotonic()
        try:
            return await _within(
                seconds,
                call,
                EnvironmentFault(
                    f"{verb} of task {self.task.id!r} did not come back within {seconds:g} s ({verb}_deadline)."
                ),
            )
        except (EnvironmentFault, InfrastructureFault):
            raise
        except Exception as error:
            raise EnvironmentFault(f"{verb} of task {self.task.id!r} raised {type(error).__name__}: {error}") from error
        finally:
            self._clock.environment += time.monotonic() - began

    def _checked(self, observation: Observation) -> Observation:
        size = sum(len(message.content) for message in observation.messages)
        if size > self.player.limits.max_observation:
            raise EnvironmentFault(
                f"the environment of task {self.task.id!r} showed {size:,} characters at once; allowed are "
                f"{self.player.limits.max_observation:,} (max_observation). Show less, or page it."
            )
        return observation


class _Clock:
    """Seconds of the step in progress."""

    def __init__(self) -> None:
        self.started = time.time()
        self.waiting = self.model = self.environment = 0.0

    def taken(self) -> Timings:
        timings = Timings(self.started, self.waiting, self.model, self.environment)
        self.__init__()  # type: ignore[misc]
        return timings


async def _within(seconds: float, call: Awaitable[T], late: Exception) -> T:
    """Await `call`; raise `late` where it takes longer than `seconds`."""
    try:
        async with asyncio.timeout(seconds) as scope:
            return await call
    except TimeoutError:
        if scope.expired():
            raise late from None
        raise
