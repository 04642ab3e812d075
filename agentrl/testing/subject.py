"""The environment under check: how to make one, the tasks to try, and what was seen of it so far.

Every instance is closed by the one who opened it; a `close` that raises is kept for the check of `close`.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from agentrl.agents import Agent
from agentrl.blame import AuthorFault
from agentrl.environment import adapt
from agentrl.protocols import Environment
from agentrl.remote.declaration import Declaration, declaration_of
from agentrl.testing.episodes import Episode, author_of, blaming, limits_of, play
from agentrl.testing.pace import Pace
from agentrl.testing.watch import LoopWatch
from agentrl.types import Task, ToolSpec

BLOCK_LIMIT = 0.2
"Seconds that author code may hold the event loop."
FIRST_USE_LIMIT = 2.0
"Seconds that it may do so once in a process: importing a client, reading certificates."


class Subject:
    def __init__(self, factory: Callable[[], object], seed: int, pace: Pace) -> None:
        """Raises what the factory raises."""
        self.pace = pace
        first = adapt(factory())
        self._factory = factory
        self._unused: Environment | None = first
        self.seed = seed
        self.owner = author_of(first)
        self.declared: Declaration = getattr(first, "declared", None) or declaration_of(first)
        self.name = self.declared.name
        self.limits = limits_of(first)
        self.tools: tuple[ToolSpec, ...] = tuple(first.tools())
        self.has_oracle = hasattr(first, "oracle")
        self.sample: list[Task] = []
        self.oracle: list[Episode] = []
        self.random: list[Episode] = []
        self.others: list[Episode] = []
        self.faults: list[AuthorFault] = []
        self.close_faults: list[AuthorFault] = []
        self.watch = LoopWatch(self.owner, BLOCK_LIMIT)

    def new(self) -> Environment:
        made, self._unused = self._unused, None
        return made if made is not None else adapt(self._factory())

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Environment]:
        environment = self.new()
        try:
            yield environment
        finally:
            try:
                with blaming(environment, "close"):
                    await environment.close()
            except AuthorFault as fault:
                self.close_faults.append(fault)

    async def play(
        self, task: Task, choose: Callable[[Environment, Task], Agent], salt: int = 0, *, seconds: float = math.inf
    ) -> Episode:
        """One episode, or its first `seconds`, in an instance of its own, with the event loop watched."""
        await asyncio.sleep(0)
        rng = random.Random(f"{self.seed}/{task.id}/{salt}")
        async with self.opened() as environment:
            episode = await play(environment, task, choose, rng, self.watch.armed, seconds)
            self.pace.cut += not episode.ended and len(episode.results) < self.limits[0]
            self.tools = self.tools or tuple(environment.tools())
            return episode

    def where(self, *methods: str) -> str:
        """`file:line` of the first of `methods` that the author wrote."""
        return self.declared.where(*methods)

    def where_step(self, episode: Episode, index: int) -> str:
        """`file:line` of the method that answered step `index` (-1: the reset)."""
        if index < 0 or index >= len(episode.actions):
            return self.where("reset")
        calls = episode.actions[index].tool_calls
        return self.where(*(call.name for call in calls), "answered", "step", "reset")

    @property
    def hung(self) -> bool:
        return any(fault.kind == "deadline" for fault in self.faults)
