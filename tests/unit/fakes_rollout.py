"""Replayers for rollout tests: a counting world, an engine that samples from the request's seed, a toy renderer."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from agentrl.errors import EnvironmentFault
from agentrl.protocols import EngineHealth, GenerateRequest
from agentrl.types import (
    Action,
    Completion,
    Finish,
    Group,
    Message,
    Observation,
    Settlement,
    Source,
    Status,
    Step,
    StepResult,
    Task,
    Timings,
    TokenIds,
    ToolCall,
    ToolSpec,
    Trajectory,
    token_ids,
)

STOP = 1
END_OF_ROLE = 2
BYTE = 3
"Token of byte b is BYTE + b."


def tasks(count: int) -> list[Task]:
    return [Task(f"t{index}", "counter", seed=index, data={"length": 1 + index % 3}) for index in range(count)]


class Renderer:
    """Bytes with a stop token; text beginning with `!` is malformed."""

    name = "toy"
    stop_token_ids = (STOP,)

    def __init__(self, extends: bool = True) -> None:
        self.extends = extends

    def render(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> TokenIds:
        return token_ids([token for message in messages for token in self._message(message)])

    def extend(self, context: TokenIds, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> TokenIds | None:
        return self.render(messages, tools) if self.extends else None

    def parse(self, tokens: TokenIds, tools: Sequence[ToolSpec]) -> Action:
        text = self.decode(tokens)
        return Action(text, error="malformed") if text.startswith("!") else Action(text)

    def action_tokens(self, action: Action, tools: Sequence[ToolSpec] = ()) -> TokenIds:
        return token_ids([BYTE + byte for byte in action.text.encode()] + [STOP])

    def decode(self, tokens: TokenIds) -> str:
        return bytes(int(token) - BYTE for token in tokens if token >= BYTE).decode()

    def _message(self, message: Message) -> list[int]:
        return [BYTE + byte for byte in f"{message.role}:{message.content}".encode()] + [END_OF_ROLE]


class Engine:
    """Answers with letters drawn from the request's seed, after `latency(request)` seconds."""

    trainable = True
    max_context = 4096

    def __init__(
        self,
        answer: Callable[[GenerateRequest], str] | None = None,
        latency: Callable[[GenerateRequest], float] | None = None,
    ) -> None:
        self.version = 0
        self.requests: list[GenerateRequest] = []
        self.completions: list[TokenIds] = []
        self.forgotten: list[str] = []
        self.running = self.peak = 0
        self._answer = answer or (lambda request: random.Random(request.sampling.seed).choice("abcdef"))
        self._latency = latency or (lambda request: 0.0)

    async def start(self) -> None: ...

    async def generate(self, request: GenerateRequest) -> Completion:
        self.running += 1
        self.peak = max(self.peak, self.running)
        version = self.version
        try:
            await asyncio.sleep(self._latency(request))
            text = self._answer(request)
        finally:
            self.running -= 1
        tokens = token_ids([BYTE + byte for byte in text.encode()] + [STOP])[: request.sampling.max_tokens]
        self.requests.append(request)
        self.completions.append(tokens)
        finish = Finish.STOP if tokens[-1] == STOP else Finish.LENGTH
        logprobs = np.linspace(-1, -0.5, len(tokens), dtype=np.float32)
        top = tuple(self.alternatives(int(token)) for token in tokens) if request.sampling.top_logprobs else ()
        return Completion(tokens, logprobs, np.full(len(tokens), version, np.int32), finish, 0, top)

    def alternatives(self, token: int) -> dict[int, float]:
        """The likeliest tokens beside a sampled one: as many as its id says, all equally likely."""
        count = 2 + token % 3
        return {number: -math.log(count) for number in range(count)}

    async def score(self, tokens: TokenIds) -> np.ndarray:
        return np.zeros(len(tokens), np.float32)

    async def pause(self) -> None: ...

    async def resume(self) -> None: ...

    async def forget(self, session: str) -> None:
        self.forgotten.append(session)

    async def health(self) -> EngineHealth:
        return EngineHealth(True)

    async def close(self) -> None: ...


class World:
    """Ends after `task.data["length"]` steps; the reward counts the answers "a". Counts who is open."""

    def __init__(
        self, trouble: Callable[[str, Task, int], float | Exception | None] | None = None, copies: bool = False
    ) -> None:
        """`trouble(verb, task, step)`: seconds to sleep, an error to raise, or None. `copies`: it has snapshots."""
        self.copies = copies
        self.restored = 0
        self.open = self.peak = self.made = 0
        self._trouble = trouble or (lambda verb, task, step: None)

    def __call__(self) -> WorldInstance:
        self.made += 1
        self.open += 1
        self.peak = max(self.peak, self.open)
        return CopiedWorldInstance(self) if self.copies else WorldInstance(self)

    async def meet(self, verb: str, task: Task, step: int) -> None:
        trouble = self._trouble(verb, task, step)
        if isinstance(trouble, Exception):
            raise trouble
        if trouble is not None:
            await asyncio.sleep(trouble)


class WorldInstance:
    def __init__(self, world: World) -> None:
        self._world = world
        self._closed = False
        self._steps = 0
        self._task: Task

    def tasks(self, split: str) -> Iterable[Task]:
        return tasks(10)

    def tools(self) -> Sequence[ToolSpec]:
        return ()

    async def reset(self, task: Task) -> Observation:
        self._task = task
        await self._world.meet("reset", task, 0)
        return Observation((Message("user", f"task {task.id}"),), state_key="s0")

    async def step(self, action: Action) -> StepResult:
        await self._world.meet("step", self._task, self._steps)
        self._steps += 1
        if action.text.startswith("?"):
            return StepResult(Observation((Message("user", "what?"),)), policy_error="what?")
        return StepResult(
            Observation((Message("user", f"saw {action.text}"),), state_key=f"s{self._steps}"),
            reward=float(action.text == "a"),
            terminated=self._steps >= self._task.data["length"],
        )

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._world.open -= 1


class CopiedWorldInstance(WorldInstance):
    async def snapshot(self) -> object:
        return {"steps": self._steps}

    async def restore(self, snapshot: object) -> Observation:
        self._world.restored += 1
        self._steps = snapshot["steps"]  # type: ignore[index]
        return Observation((Message("user", "back"),), state_key=f"s{self._steps}")


class Diary:
    """A ledger in memory that refuses what a ledger must refuse."""

    def __init__(self) -> None:
        self.live: dict[str, int] = {}
        self.finished: list[str] = []
        self.records: dict[str, Trajectory] = {}
        self.dropped: dict[str, str] = {}
        self.settled: dict[str, Settlement] = {}
        self.batches: list[tuple[int, list[str]]] = []

    def issue(self, ordinal: int, group: str, task: Task, members: Sequence[str]) -> None:
        assert group not in self.live
        self.live[group] = ordinal

    def finish(self, *trajectories: object) -> None:
        for trajectory in trajectories:
            assert trajectory.id not in self.finished  # type: ignore[attr-defined]
            self.finished.append(trajectory.id)  # type: ignore[attr-defined]
            self.records[trajectory.id] = trajectory  # type: ignore[attr-defined]

    def trajectory(self, name: str) -> Trajectory:
        return self.records[name]

    def settle(self, group: str, settlement: Settlement) -> None:
        assert group in self.live and set(settlement.members) <= set(self.finished)
        assert group not in self.settled
        self.settled[group] = settlement

    def drop(self, group: str, reason: str) -> None:
        self.dropped[group] = reason

    def reissue(self, group: str, fresh: str, members: Sequence[str]) -> None:
        self.dropped[group] = "stale"
        self.live[fresh] = self.live[group]

    def batched(self, update: int, trajectories: Sequence[str]) -> None:
        used = {trajectory for _, batch in self.batches for trajectory in batch}
        assert not used.intersection(trajectories)
        assert set(trajectories) <= set(self.finished)
        self.batches.append((update, list(trajectories)))


class SetSampler:
    """t0, t1, t2, ... without end; remembers what it was told."""

    def __init__(self) -> None:
        self.given = 0
        self.observed: list[str] = []

    def next(self, count: int) -> Sequence[Task]:
        first, self.given = self.given, self.given + count
        return [Task(f"t{i}", "counter", seed=i, data={"length": 1 + i % 3}) for i in range(first, self.given)]

    def observe(self, group: object) -> None:
        self.observed.append(group.id)  # type: ignore[attr-defined]

    def state(self) -> object:
        return self.given

    def restore(self, state: object) -> None:
        self.given = int(state)  # type: ignore[call-overload]


def broken(text: str = "the world fell over") -> EnvironmentFault:
    return EnvironmentFault(text)


def trajectory(
    name: str = "g-0", reward: float = 0.1, versions: tuple[int, ...] = (3, 4), status: Status = Status.TRUNCATED
) -> Trajectory:
    """One with every field set to something of its own."""
    task = Task("t", "env", 9, {"list": [1, None, {"x": "ü"}], "f": 0.1}, "train", ("a", "b"))
    call = ToolCall("open", {"door": "red", "times": [1, 2.5]}, "c1")
    step = Step(
        id="g-0.0",
        index=0,
        previous=None,
        context=None,
        prompt=token_ids([5, 6]),
        tokens=token_ids(range(len(versions))),
        logprobs=np.linspace(-3, -0.1, len(versions), dtype=np.float32),
        versions=token_ids(versions),
        action=Action("hm", (call,), "thought", ""),
        observation=Observation((Message("user", "x"), Message("tool", "y", (), "open", "c1")), ("ab",), "key"),
        reward=reward,
        scores={"success": 1.0},
        truncated=True,
        error="slip",
        finish=Finish.LENGTH,
        timings=Timings(1.0, 2.0, 3.0, 4.0, 5.0),
        seen=token_ids([5, 7, 6]),
        told="mind the door",
        snapshot={"room": [1, None]},
    )
    return Trajectory(
        name,
        task,
        name.split("-")[0],
        (step,),
        status,
        Source.REPLAY,
        forked_from="g-1.0",
        forks=2,
        attempt=1,
        final=Observation(()),
        given="try the window",
    )


def same(a: object, b: object) -> bool:
    """Deep equality with dtypes; the dataclasses themselves compare by identity."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.flags.writeable == b.flags.writeable and np.array_equal(a, b)
    if type(a) is not type(b):
        return False
    if hasattr(a, "__dataclass_fields__"):
        return all(same(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))  # type: ignore[arg-type]
    return a == b


def jitter(seed: int) -> Callable[[object], float]:
    dice = random.Random(seed)
    return lambda request: dice.random() * 0.004


def numbers(batches: Sequence[Sequence[Group]]) -> list[tuple[object, ...]]:
    return [
        (group.id, t.id, t.reward, step.tokens.tolist(), step.versions.tolist(), step.logprobs.tolist())
        for batch in batches
        for group in batch
        for t in group.trajectories
        for step in t.steps
    ]
