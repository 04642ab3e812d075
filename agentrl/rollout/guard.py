"""One environment for one episode: every call is cut at its deadline, and what comes back is checked.

Whatever goes wrong in the world leaves here as an `EnvironmentFault`; a mistake of the model never does.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from agentrl.errors import EnvironmentFault, InfrastructureFault, InvalidDataError
from agentrl.pictures import is_name, picture_bytes
from agentrl.protocols import Environment, Snapshots
from agentrl.rollout.limits import EpisodeLimits
from agentrl.types import JSON, Action, Message, Observation, StepResult, Task, ToolSpec

T = TypeVar("T")

_MAX_STEPS = 64


class GuardedWorld:
    """The environment as an episode sees it. Its owner closes it."""

    def __init__(
        self, environment: Environment, task: Task, limits: EpisodeLimits, enter: Callable[[str], None]
    ) -> None:
        """`enter` is told what is waited for."""
        self.tools: tuple[ToolSpec, ...] = ()
        self.seconds = 0.0
        "Waited for the environment since this was last set to 0."
        self._environment = environment
        self._task = task
        self._limits = limits
        self._enter = enter
        # An adapted `Env` (it has `.author`) tells the model its mistakes itself and counts and grades the step.
        self._tells_mistakes = bool(getattr(environment, "tells_mistakes", hasattr(environment, "author")))
        self.max_steps = limits.max_steps or _MAX_STEPS
        own: int | None = getattr(environment, "max_steps", None)
        if own is not None:
            self.max_steps = min(own, limits.max_steps or own)
            # An environment with a limit grades where it truncates: let it do so at ours.
            environment.max_steps = self.max_steps  # type: ignore[attr-defined]

    async def reset(self) -> Observation:
        call = self._environment.reset(self._task)
        observation = self._checked(await self._call("reset", call, "reset_deadline"))
        self._read_tools()
        return observation

    async def step(self, action: Action, shown: Observation, index: int) -> StepResult:
        """What comes back from `action`, which answers `shown` at step `index`."""
        if action.error and not self._tells_mistakes:
            told = Observation((Message("user", action.error),), state_key=shown.state_key)
            return StepResult(told, policy_error=action.error)
        result = await self._call("step", self._environment.step(action), "step_deadline")
        self._checked(result.observation)
        self._check_rewards(result, index)
        if not (result.terminated or result.truncated):
            self._read_tools()
        return result

    @property
    def copies(self) -> bool:
        """Whether the environment has snapshots."""
        return isinstance(self._environment, Snapshots)

    async def snapshot(self) -> JSON:
        """The state between two steps; None where the environment has no snapshots."""
        if not isinstance(self._environment, Snapshots):
            return None
        return await self._call("snapshot", self._environment.snapshot(), "reset_deadline")

    async def restore(self, snapshot: JSON) -> Observation:
        """Return to a snapshot that an instance of the same environment took. Only where `copies`."""
        assert isinstance(self._environment, Snapshots)
        call = self._environment.restore(snapshot)
        observation = self._checked(await self._call("restore", call, "reset_deadline"))
        self._read_tools()
        return observation

    async def grade(self, index: int) -> StepResult | None:
        """What the episode is worth where it stands now, after step `index`; None where only the end is graded."""
        grade: Callable[[], Awaitable[StepResult]] | None = getattr(self._environment, "grade", None)
        if grade is None:
            return None
        result = await self._call("grade", grade(), "step_deadline")
        self._check_rewards(result, index)
        return result

    def _read_tools(self) -> None:
        try:
            self.tools = tuple(self._environment.tools())
        except Exception as error:
            raise self._blamed("tools", error) from error

    async def _call(self, verb: str, call: Awaitable[T], deadline: str) -> T:
        """Await the environment, and blame it for whatever it raises."""
        self._enter(f"the environment's {verb}")
        began = time.monotonic()
        try:
            # One that names a deadline keeps it itself; the episode's deadline stands behind both.
            if getattr(self._environment, deadline, None) is not None:
                return await call
            seconds: float = getattr(self._limits, deadline)
            return await within(seconds, call, lambda: self._late(verb, seconds, deadline))
        except (EnvironmentFault, InfrastructureFault):
            raise
        except Exception as error:
            raise self._blamed(verb, error) from error
        finally:
            self.seconds += time.monotonic() - began

    def _late(self, verb: str, seconds: float, deadline: str) -> EnvironmentFault:
        return EnvironmentFault(
            f"{verb} of task {self._task.id!r} did not come back within {seconds:g} s ({deadline})."
        )

    def _blamed(self, verb: str, error: Exception) -> Exception:
        if isinstance(error, (EnvironmentFault, InfrastructureFault)):
            return error
        return EnvironmentFault(f"{verb} of task {self._task.id!r} raised {type(error).__name__}: {error}")

    def _check_rewards(self, result: StepResult, index: int) -> None:
        for reward in (result.reward, *result.late.values()):
            if not math.isfinite(reward):
                raise EnvironmentFault(
                    f"the environment of task {self._task.id!r} returned reward {reward} at step {index}; a reward is "
                    "a finite number."
                )

    def _checked(self, observation: Observation) -> Observation:
        size = sum(len(message.content) for message in observation.messages)
        if size > self._limits.max_observation:
            raise EnvironmentFault(
                f"the environment of task {self._task.id!r} showed {size:,} characters at once; allowed are "
                f"{self._limits.max_observation:,} (max_observation). Show less, or page it."
            )
        try:
            for image in observation.images:
                if not is_name(image):
                    picture_bytes(image)
        except InvalidDataError as error:
            raise EnvironmentFault(f"the environment of task {self._task.id!r} showed no picture: {error}") from error
        return observation


async def within(seconds: float, call: Awaitable[T], late: Callable[[], Exception]) -> T:
    """Await `call`; raise what `late` makes where it takes longer than `seconds`."""
    try:
        async with asyncio.timeout(seconds) as scope:
            return await call
    except TimeoutError:
        if scope.expired():
            raise late() from None
        raise
