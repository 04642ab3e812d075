"""An author's `Env` as the rollout engine plays it.

Every call of author code goes through `_ask`, which turns whatever it raises into an `EnvironmentFault` with file
and line; every wait has a deadline that is kept here.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import math
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from agentrl.blame import AuthorFault, frames_of, is_own, place, shorten, source_of
from agentrl.errors import EnvironmentFault, InfrastructureFault, InvalidDataError, PluginError, PolicyError
from agentrl.pictures import picture
from agentrl.tools import Tool, encode_result, find_tool, tools_of
from agentrl.types import JSON, Action, Message, Observation, StepResult, Task, ToolCall, ToolSpec
from agentrl.worker import Worker

if TYPE_CHECKING:
    from agentrl.environment import Env

T = TypeVar("T")
_HOOKS = (
    "reset", "done", "answered", "step_reward", "reward", "scores", "state_key", "screenshot", "snapshot", "restore",
    "close",
)  # fmt: skip


class Adapter:
    """Implements `protocols.Environment`; also `Snapshots` and `HasOracle` where the author offers them."""

    oracle: Callable[[Task], Iterable[Action]]
    demonstrate: Callable[[Task, random.Random], Iterable[Action]]
    snapshot: Callable[[], Awaitable[JSON]]
    restore: Callable[[JSON], Awaitable[Observation]]

    def __init__(self, author: Env) -> None:
        self.author = author
        self.name = type(author).__name__
        self.max_steps, self.step_deadline, self.reset_deadline = _limits(author)
        self._tools = tools_of(type(author))
        self._specs = tuple(tool.spec for tool in self._tools.values())
        names = (*_HOOKS, *self._tools)
        self._own = {name for name in names if is_own(type(author), name)}
        self.waits = any(inspect.iscoroutinefunction(getattr(author, name)) for name in names)
        "It has async methods."
        # A wholly synchronous world does a whole step in one visit to its thread; a mixed one goes there per method.
        self._whole_in_thread = author.runs_in == "thread" and not self.waits
        self._each_in_thread = author.runs_in == "thread" and self.waits
        self._worker = Worker(f"agentrl-{self.name}")
        self._task: Task | None = None
        self._steps = 0
        self._over = True
        self._closed = False
        self._method = "__init__"
        if "snapshot" in self._own and "restore" in self._own:
            self.snapshot, self.restore = self._snapshot, self._restore
        if is_own(type(author), "oracle"):
            self.oracle = self._oracle
        if is_own(type(author), "oracle") or is_own(type(author), "demonstrate"):
            self.demonstrate = self._demonstrate

    def tasks(self, split: str) -> Iterator[Task]:
        """The author's tasks, lazily, each marked with `split`."""
        for task in self._iterate("tasks", lambda: self.author.tasks(split), Task):
            yield task if task.split == split else replace(task, split=split)

    def tools(self) -> Sequence[ToolSpec]:
        return self._specs

    async def reset(self, task: Task) -> Observation:
        self._ready("reset")
        return await self._within(self.reset_deadline, "reset_deadline", functools.partial(self._reset, task))

    async def step(self, action: Action) -> StepResult:
        self._ready("step")
        if self._over:
            raise EnvironmentFault(f"{self.name}.step was called without a running episode: call `reset` first.")
        return await self._within(self.step_deadline, "step_deadline", functools.partial(self._step, action))

    async def grade(self) -> StepResult:
        """End the episode where it stands, graded as at `max_steps`; the reward is what that adds to the last step."""
        self._ready("grade")
        return await self._within(self.step_deadline, "step_deadline", self._graded)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = self._over = True
        if self._worker.abandoned:
            # The thread that hangs cannot be used; closing from another one is what may free it.
            self._worker = Worker(f"agentrl-{self.name}-close")
        try:
            await self._within(self.reset_deadline, "reset_deadline", functools.partial(self._ask, "close"))
        finally:
            self._worker.stop()

    def cheats(self, task: Task) -> dict[str, Iterable[Action]]:
        """The author's named lines of play that must not win, lazily."""
        self._method = "cheats"
        try:
            named = dict(self.author.cheats(task))
        except Exception as error:
            raise self._fault("cheats", error) from error
        return {name: self._iterate("cheats", functools.partial(iter, line), Action) for name, line in named.items()}

    def _oracle(self, task: Task) -> Iterator[Action]:
        return self._iterate("oracle", lambda: self.author.oracle(task), Action)

    def _demonstrate(self, task: Task, rng: random.Random) -> Iterator[Action]:
        return self._iterate("demonstrate", lambda: self.author.demonstrate(task, rng), Action)

    async def _snapshot(self) -> JSON:
        """The author's snapshot with the task and the step count."""
        self._ready("snapshot")
        if self._task is None:
            raise EnvironmentFault(f"{self.name}.snapshot was called before `reset`.")
        world = await self._within(self.reset_deadline, "reset_deadline", functools.partial(self._ask, "snapshot"))
        try:
            # Through text: a snapshot must not share lists with the world that goes on.
            world = json.loads(json.dumps(world, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise EnvironmentFault(f"{self.name}.snapshot returned what is not JSON: {error}.") from error
        task = {**asdict(self._task), "tags": list(self._task.tags)}
        return {"task": task, "steps": self._steps, "over": self._over, "world": world}

    async def _restore(self, snapshot: JSON) -> Observation:
        self._ready("restore")
        return await self._within(self.reset_deadline, "reset_deadline", functools.partial(self._return_to, snapshot))

    async def _return_to(self, snapshot: JSON) -> Observation:
        task = Task(**{**snapshot["task"], "tags": tuple(snapshot["task"]["tags"])})
        if self._task != task:
            await self._reset(task)
        shown = await self._ask("restore", json.loads(json.dumps(snapshot["world"])))
        self._steps, self._over = snapshot["steps"], snapshot["over"]
        return await self._observe("restore", Observation(()) if shown is None else shown)

    async def _reset(self, task: Task) -> Observation:
        self._task, self._steps, self._over = task, 0, True
        observation = await self._observe("reset", await self._ask("reset", task))
        system = self.author.system
        if system and (not observation.messages or observation.messages[0].role != "system"):
            observation = replace(observation, messages=(Message("system", system), *observation.messages))
        self._over = False
        return observation

    async def _step(self, action: Action) -> StepResult:
        self._steps += 1
        messages, mistakes, terminated = await self._act(action)
        terminated = bool(await self._ask("done")) or terminated
        truncated = not terminated and self._steps >= self.max_steps
        reward = self._finite("step_reward", await self._ask("step_reward"))
        scores: dict[str, float] = {}
        if terminated or truncated:
            graded = await self._graded()
            reward, scores = reward + graded.reward, dict(graded.scores)
        return StepResult(
            observation=await self._observe("state_key", Observation(tuple(messages))),
            reward=reward,
            scores=scores,
            terminated=terminated,
            truncated=truncated,
            policy_error=self._cut("; ".join(mistakes)),
        )

    async def _graded(self) -> StepResult:
        self._over = True
        final = self._finite("reward", await self._ask("reward"))
        return StepResult(Observation(()), final, self._checked_scores(final, await self._ask("scores")))

    async def _act(self, action: Action) -> tuple[list[Message], list[str], bool]:
        """What comes back, the model's mistakes, and whether it ended the episode by speaking."""
        if action.error:
            return [Message("user", action.error)], [action.error], False
        if not action.tool_calls:
            reply = await self._ask("answered", action.text)
            if reply is None:
                return [], [], True
            if not isinstance(reply, str):
                raise self._nonsense("answered", reply, "a str (the user's reply) or None (the episode ends)")
            return [Message("user", reply)], [], False
        messages, mistakes = [], []
        for made in action.tool_calls:
            text, mistake = await self._use(made)
            messages.append(Message("tool", text, name=made.name, call_id=made.id))
            mistakes += [mistake] if mistake else []
        return messages, mistakes, False

    async def _use(self, made: ToolCall) -> tuple[str, str]:
        """The text for the model, and the mistake if it made one."""
        try:
            tool: Tool = find_tool(self._tools, made.name)
            result = await self._ask(made.name, **tool.validate(made.arguments))
        except PolicyError as mistake:
            return str(mistake), str(mistake) or "the call was refused"
        try:
            return encode_result(result), ""
        except ValueError as error:
            raise self._nonsense(made.name, result, f"a str or JSON ({error})") from error

    async def _observe(self, method: str, shown: object) -> Observation:
        if isinstance(shown, str):
            shown = Observation((Message("user", shown),))
        if not isinstance(shown, Observation):
            raise self._nonsense(method, shown, "a str or an Observation")
        key = shown.state_key
        if key is None:
            key = await self._ask("state_key")
        if not (key is None or isinstance(key, str)):
            raise self._nonsense("state_key", key, "a str or None")
        messages = tuple(replace(message, content=self._cut(message.content)) for message in shown.messages)
        return replace(shown, messages=messages, images=(*shown.images, *await self._seen()), state_key=key)

    async def _seen(self) -> tuple[str, ...]:
        """The author's screenshot, where there is one."""
        data = await self._ask("screenshot") if "screenshot" in self._own else None
        if data is None:
            return ()
        try:
            return (picture(data),)
        except (InvalidDataError, TypeError):
            raise self._nonsense("screenshot", data, "the bytes of a PNG, JPEG, GIF or WebP, or None") from None

    async def _ask(self, name: str, /, *args: Any, **arguments: Any) -> Any:
        """Call the author's method in the right place. Raises `PolicyError` (from tools only) or a fault."""
        self._method = name
        method = getattr(self.author, name)
        try:
            if self._each_in_thread and name in self._own and not inspect.iscoroutinefunction(method):
                return await self._worker.run(functools.partial(method, *args, **arguments))
            result = method(*args, **arguments)
            return await result if inspect.isawaitable(result) else result
        except (EnvironmentFault, InfrastructureFault):
            raise
        except (Exception, SystemExit) as error:
            if isinstance(error, PolicyError) and name in self._tools:
                raise
            raise self._fault(name, error) from error

    async def _within(self, seconds: float, limit: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run `work` where it belongs, and cut it at its deadline."""
        try:
            async with asyncio.timeout(seconds) as scope:
                if self._whole_in_thread:
                    return await self._worker.run(lambda: _drive(work()))
                return await work()
        except TimeoutError as error:
            if not scope.expired():
                raise
            cause = error.__cause__
            where = self._place(self._method, self._worker.frame() or (cause.__traceback__ if cause else None))
            self._worker.abandon()
            self._over = True
            what = f"{self.name}.{self._method} did not come back within {seconds:g} s ({limit}); it waits at {where}."
            advice = f"Make it faster, or raise `{limit}` of {self.name}."
            raise AuthorFault(f"{what} {advice}", "deadline", self._method, where) from None

    def _ready(self, verb: str) -> None:
        if self._closed:
            raise EnvironmentFault(f"{self.name}.{verb} was called after `close`: make a new instance.")
        if self._worker.abandoned:
            raise EnvironmentFault(
                f"{self.name}.{verb} was called after a call that ran past its deadline: make a new instance."
            )

    def _iterate(self, name: str, begin: Callable[[], Iterable[Any]], kind: type[T]) -> Iterator[T]:
        """The author's items one by one, with faults named and types checked."""
        self._method = name
        try:
            for item in begin():
                if not isinstance(item, kind):
                    raise self._nonsense(name, item, f"{kind.__name__} objects")
                yield item
        except EnvironmentFault:
            raise
        except Exception as error:
            raise self._fault(name, error) from error

    def _finite(self, method: str, value: object) -> float:
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise self._nonsense(method, value, "a finite number", "not_finite") from None
        if not math.isfinite(number):
            raise self._nonsense(method, value, "a finite number", "not_finite")
        return number

    def _checked_scores(self, final: float, scores: object) -> dict[str, float]:
        if not isinstance(scores, Mapping):
            raise self._nonsense("scores", scores, "a dict of numbers by name")
        return {"success": float(final >= 1)} | {str(k): self._finite("scores", v) for k, v in scores.items()}

    def _cut(self, text: str) -> str:
        limit = self.author.text_limit
        if len(text) <= limit:
            return text
        return f"{text[:limit]}\n[cut: {len(text):,} characters, the first {limit:,} are shown]"

    def _fault(self, method: str, error: BaseException) -> AuthorFault:
        where = self._place(method, error.__traceback__)
        advice = " Raise ToolError where the model is at fault." if method in self._tools else ""
        what = f"{self.name}.{method} raised {type(error).__name__}: {error} at {where}.{advice}"
        return AuthorFault(what, "raised", method, where)

    def _nonsense(
        self, method: str, value: object, allowed: str, kind: Literal["nonsense", "not_finite"] = "nonsense"
    ) -> AuthorFault:
        where = self._place(method, None)
        what = f"{self.name}.{method} returned {shorten(value)} at {where}; allowed is {allowed}."
        return AuthorFault(what, kind, method, where)

    def _place(self, method: str, start: TracebackType | FrameType | None) -> str:
        return place(type(self.author), method, frames_of(start))


def _limits(author: Env) -> tuple[int, float, float]:
    limits = (author.max_steps, author.step_deadline, author.reset_deadline)
    if any(not limit > 0 for limit in limits):
        raise PluginError(
            f"{type(author).__name__} has max_steps {limits[0]}, step_deadline {limits[1]} and reset_deadline "
            f"{limits[2]} at {source_of(type(author), '__init__')}; all three are above 0."
        )
    return int(limits[0]), float(limits[1]), float(limits[2])


def _drive(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing, in a thread without an event loop."""
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    work.close()
    raise EnvironmentFault("a plain method of the environment returned an awaitable: write it as `async def`.")
