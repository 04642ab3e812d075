"""Any environment of agentrl as an OpenEnv server: each session plays in instances of its own.

An instance is made at a reset and closed at the next one, at the end of its session, and when the server ends. Seeds
name tasks: below `FIRST_TEST_SEED` of the split train, from it on of the split test.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import uuid4

from openenv.core.env_server import Environment, Observation, State
from openenv.core.env_server.types import EnvironmentMetadata

import agentrl
from agentrl import Task
from agentrl.environment import adapt
from agentrl.errors import ConfigError, did_you_mean
from agentrl.protocols import Environment as World
from agentrl_openenv.served import Decision, listing, opened, stepped
from agentrl_openenv.tasks import FIRST_TEST_SEED

MOST_TASKS = 10_000
"Of one split that are served; a seed beyond them, or beyond the split's last one, begins anew."
CLOSE_SECONDS = 40.0


class Hosted:
    """The environment that is served, shared by all sessions."""

    def __init__(self, name: str, make: Callable[[], object]) -> None:
        """`make` makes a fresh environment. Raises what it raises, and `ConfigError` where there is no task."""
        self.name = name
        self.live: set[Session] = set()
        self._make = make
        self._lock = threading.Lock()
        self.about = adapt(make())
        "Never reset: it tells the tasks."
        self._tasks: dict[str, list[Task]] = {"train": [], "test": []}
        self._more: dict[str, Iterator[Task]] = {split: iter(self.about.tasks(split)) for split in self._tasks}
        if not any(self._upto(split, 1) for split in self._tasks):
            raise ConfigError(f"the environment {name!r} has no tasks, neither of 'train' nor of 'test'.")

    @property
    def description(self) -> str:
        author = getattr(self.about, "author", self.about)
        return (type(author).__doc__ or self.name).partition("\n")[0]

    def world(self) -> World:
        return adapt(self._make())

    def task(self, seed: int | None, split: str | None, name: str | None) -> Task:
        """By its id, or by its number: the first one if nothing is said. Thread-safe. Raises `ConfigError`."""
        if split is not None and split not in self._tasks:
            raise ConfigError(f"there is no split {split!r}; there are 'train' and 'test'.")
        with self._lock:
            if name is not None:
                return self._named(name, tuple(self._tasks) if split is None else (split,))
            split = split or ("test" if (seed or 0) >= FIRST_TEST_SEED else "train")
            number = (seed or 0) % FIRST_TEST_SEED % MOST_TASKS
            known = self._upto(split, number + 1)
        if not known:
            raise ConfigError(f"the environment {self.name!r} has no tasks of the split {split!r}.")
        return known[number % len(known)]

    async def close(self) -> None:
        """Every session's world, and the one that told the tasks."""
        await asyncio.gather(*(session.leave() for session in list(self.live)), return_exceptions=True)
        await self.about.close()

    def _named(self, name: str, splits: Sequence[str]) -> Task:
        for number in range(MOST_TASKS):
            found = [known[number] for split in splits if len(known := self._upto(split, number + 1)) > number]
            if not found:
                break
            for task in found:
                if task.id == name:
                    return task
        near = did_you_mean(name, [task.id for split in splits for task in self._tasks[split][:1000]])
        raise ConfigError(f"no task is called {name!r} among the first {MOST_TASKS:,} of {' and '.join(splits)}.{near}")

    def _upto(self, split: str, count: int) -> list[Task]:
        known = self._tasks[split]
        while len(known) < count and (task := next(self._more[split], None)) is not None:
            known.append(task)
        return known


class Session(Environment[Decision, Observation, State]):
    """One session, as openenv-core's server drives it: its async methods on the server's loop, `close` in a thread."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, hosted: Hosted) -> None:
        super().__init__()
        self._hosted = hosted
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._world: World | None = None
        self._state = State()
        self._over = False
        self._closed = False

    async def reset_async(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        split: str | None = None,
        task: str | None = None,
        **_: Any,
    ) -> Observation:
        """seed: the task of this number. split: train or test, if the seed shall not say it. task: its id."""
        # A search for an id takes seconds in a large world, and every session waits on this loop.
        chosen = await asyncio.to_thread(self._hosted.task, seed, split, task)
        if self._closed:
            raise agentrl.EnvironmentFault("this session was closed, since nothing was asked of it: connect again.")
        await self.leave()
        self._loop, self._thread, self._over = asyncio.get_running_loop(), threading.get_ident(), False
        self._world = self._hosted.world()
        self._hosted.live.add(self)
        self._state = State(
            episode_id=episode_id or uuid4().hex, step_count=0, task=chosen.id, split=chosen.split, seed=chosen.seed
        )
        return opened(await self._world.reset(chosen))

    async def step_async(self, action: Decision, timeout_s: float | None = None, **_: Any) -> Observation:
        if action.type == "list_tools" and not self._closed:
            return listing((self._world or self._hosted.about).tools())
        if self._world is None:
            why = "this session was closed, since nothing was asked of it" if self._closed else "there is no episode"
            raise agentrl.EnvironmentFault(f"{why}: reset first.")
        if self._over:
            raise agentrl.EnvironmentFault("the episode is over: reset begins another one.")
        done = action.as_action()
        self._state.step_count += 1
        try:
            step = await self._world.step(done)
        except BaseException:
            self._over = True
            raise
        shown = stepped(step, done)
        self._over = shown.done
        return shown

    @property
    def state(self) -> State:
        return self._state

    def get_metadata(self) -> EnvironmentMetadata:
        return EnvironmentMetadata(
            name=self._hosted.name, description=self._hosted.description, version=agentrl.__version__
        )

    async def leave(self) -> None:
        """The world of this session ends."""
        world, self._world = self._world, None
        self._hosted.live.discard(self)
        if world is not None:
            await world.close()

    def close(self) -> None:
        self._closed = True
        if self._world is None or self._loop is None or self._loop.is_closed():
            return
        leaving = asyncio.run_coroutine_threadsafe(self.leave(), self._loop)
        # Of a single request the server closes on its own loop, where nothing may wait for that loop.
        if threading.get_ident() != self._thread:
            leaving.result(CLOSE_SECONDS)

    def reset(self, seed: int | None = None, episode_id: str | None = None, **more: Any) -> Observation:
        raise NotImplementedError("a served environment is played on the server's loop: reset_async.")

    def step(self, action: Decision, timeout_s: float | None = None, **more: Any) -> Observation:
        raise NotImplementedError("a served environment is played on the server's loop: step_async.")


def session_factory(hosted: Hosted) -> Callable[[], Session]:
    """A partial of the class, by which the server sees that sessions may be many."""
    return functools.partial(Session, hosted)
