"""What the author of an agent writes to have it trained: tasks, and how the agent is started on one.

Every episode gets an address of its own; what is asked there is sampled by the run's policy within the run's limits, so
that an agent of any framework is trained by the same loop, ledger and staleness as an environment.
"""

from __future__ import annotations

import asyncio
import inspect
import secrets
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import TypeAlias
from weakref import WeakKeyDictionary

from agentrl.blame import frames_of, own_place
from agentrl.endpoint.problems import Problem
from agentrl.endpoint.requests import ChatRequest
from agentrl.endpoint.session import Ending, Exchange, Session
from agentrl.endpoint.world import ClientWorld
from agentrl.errors import EnvironmentFault
from agentrl.types import Task
from agentrl.worker import Worker

Verdict: TypeAlias = float | Ending


class AgentEnv(ClientWorld):
    """Base class of agents that bring their own loop, tools and framework. Implements `protocols.Environment`.

    An instance serves one episode at a time. Options are keyword-only, typed parameters of `__init__`.
    """

    max_steps: int | None = None
    "Answers per episode; the recipe's limit, else 64, where None."

    # On the class: an author's `__init__` need not call ours.
    _work: asyncio.Task[Verdict] | None = None
    _worker: Worker | None = None
    _door: _Door | None = None

    @abstractmethod
    def play(self, task: Task, base_url: str) -> Verdict | Awaitable[Verdict]:
        """Run the agent on `task` with `base_url` as its OpenAI-compatible API; what the episode was worth.

        A number is the reward of the whole; an `Ending` says more. Any model name and any key will do. A plain method
        runs in a thread of its own. What it raises is a fault, unless the policy ran out of context or steps first.
        """

    async def come(self, task: Task) -> None:
        await self._leave()
        super().__init__()
        door = self._door = await _enter()
        self.session = door.begin()
        self._work = asyncio.create_task(self._play(task, f"{door.url}/v1/s/{self.session.name}"))
        self._work.add_done_callback(self._ended)

    async def heard(self, wait: Callable[[], Awaitable[Exchange | Ending]]) -> Exchange | Ending:
        try:
            async with asyncio.timeout(self.patience):
                return await wait()
        except TimeoutError:
            raise EnvironmentFault(
                f"the agent {type(self).__name__} neither asked nor ended within {self.patience:g} s (patience)."
            ) from None

    async def close(self) -> None:
        await self._leave()

    async def _play(self, task: Task, base_url: str) -> Verdict:
        if inspect.iscoroutinefunction(self.play):
            return await self.play(task, base_url)  # type: ignore[no-any-return]
        self._worker = Worker(f"agent-{task.id}")
        return await self._worker.run(lambda: self.play(task, base_url))  # type: ignore[arg-type,return-value]

    def _ended(self, work: asyncio.Task[Verdict]) -> None:
        """The agent's verdict, or its error, is the last thing that its session hears."""
        if work.cancelled():
            return
        error = work.exception()
        if error is None:
            verdict = work.result()
            said = verdict if isinstance(verdict, Ending) else self._number(verdict)
        elif self.session.refused:
            # It was not allowed to go on, which is the policy's failure and not the agent's.
            said = Ending(scores={"success": 0.0})
        else:
            place = own_place(type(self), frames_of(error.__traceback__)) or "outside of its own files"
            what = f"the agent {type(self).__name__} raised {type(error).__name__}: {error} ({place})"
            said = Ending(
                fault=f"{what}. Where the policy is to blame, catch it in `play` and return what that is worth."
            )
        self.session.end(said)

    def _number(self, verdict: object) -> Ending:
        try:
            return Ending(float(verdict))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return Ending(
                fault=f"{type(self).__name__}.play returned {verdict!r}; a number (the reward) or an `Ending` is due."
            )

    async def _leave(self) -> None:
        """End the agent; what it may still ask is refused."""
        work, self._work = self._work, None
        door, self._door = self._door, None
        if work is None or door is None:
            return
        door.end(self.session)
        work.cancel()
        await asyncio.wait({work})
        if self._worker is not None:
            self._worker.stop()
        await door.leave()


class _Door:
    """Implements `server.Reception` for the agents of one event loop, on one port, until the last of them leaves."""

    models = ()

    def __init__(self) -> None:
        self.url = ""
        self.agents = 0
        self._sessions: dict[str, Session] = {}
        self._opened = asyncio.Event()
        self._serving = asyncio.create_task(self._serve())

    async def opened(self) -> None:
        """Raises what kept it closed."""
        waiting = asyncio.ensure_future(self._opened.wait())
        await asyncio.wait({waiting, self._serving}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._serving.done():
            self._serving.result()

    async def leave(self) -> None:
        """The last one out closes it; who comes meanwhile opens another."""
        self.agents -= 1
        if self.agents == 0:
            loop = asyncio.get_running_loop()
            if _DOORS.get(loop) is self:
                del _DOORS[loop]
            self._serving.cancel()
            await asyncio.wait({self._serving})

    def begin(self) -> Session:
        """A session that only who is told its address finds."""
        session = Session(secrets.token_urlsafe(16))
        self._sessions[session.name] = session
        return session

    def session(self, name: str, request: ChatRequest) -> Session:
        if name not in self._sessions:
            raise Problem(404, "there is no such episode, or it is over.", code="session_over")
        return self._sessions[name]

    def end(self, session: Session) -> None:
        if self._sessions.pop(session.name, None) is not None:
            session.close(Problem(409, "the episode is over.", code="session_over"))

    async def _serve(self) -> None:
        from agentrl.endpoint.server import Gate, bind, listening, make_app

        async with listening(make_app(self, Gate()), bind("127.0.0.1", 0, "")) as self.url:
            self._opened.set()
            await asyncio.Event().wait()


_DOORS: WeakKeyDictionary[asyncio.AbstractEventLoop, _Door] = WeakKeyDictionary()


async def _enter() -> _Door:
    """The open door of this loop, with one agent more."""
    loop = asyncio.get_running_loop()
    door = _DOORS.get(loop)
    if door is None:
        door = _DOORS[loop] = _Door()
    door.agents += 1
    try:
        await door.opened()
    except BaseException:
        await door.leave()
        raise
    return door
