"""A session: the requests of one client on one side, the episode that answers them on the other.

Requests are answered one after another, in the order in which they came; whoever waits on either side is told when the
other one is gone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from agentrl.endpoint.memory import Memory, digests_of
from agentrl.endpoint.problems import Problem
from agentrl.endpoint.replies import Choice
from agentrl.endpoint.requests import ChatRequest


@dataclass(frozen=True, slots=True)
class Ending:
    """What a client says of its episode."""

    reward: float = 0.0
    "Of the whole; added to the last step's."
    step_rewards: tuple[float, ...] = ()
    "Of each answer in order, beside it; may end early."
    scores: Mapping[str, float] = field(default_factory=dict)
    "`success` among them says whether it was one; a positive return is one where it is missing."
    fault: str = ""
    "Not empty where the client could not play on: the episode is not scored."


class Exchange:
    """One request and its answers."""

    def __init__(self, request: ChatRequest) -> None:
        self.request = request
        self.digests = digests_of(request.messages, request.tools)
        self.choices: list[Choice] = []
        self.answered: asyncio.Future[list[Choice]] = asyncio.get_running_loop().create_future()
        self.unheard = False
        "Whether who asked went away before it was told the answer."


class Session:
    """Belongs to one event loop."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.memory = Memory()
        self.answers = 0
        self._queue: deque[Exchange] = deque()
        self._last: Exchange | None = None
        self._ending: Ending | None = None
        self.refused: Problem | None = None
        "Why no request is answered any more."
        self._closed: Problem | None = None
        self._stirred = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Requests that are not answered yet."""
        busy = self._last is not None and not self._last.answered.done()
        return len(self._queue) + busy

    async def ask(self, request: ChatRequest) -> Exchange:
        """The answered exchange. A request whose answer nobody heard is given it again, not sampled anew.

        Raises `Problem` where the session is over. Cancelled, it leaves the answer for who asks the same again.
        """
        self._finished()
        if self.refused is not None:
            raise self.refused
        exchange = next((e for e in (*self._queue, self._last) if e and e.unheard and e.request == request), None)
        if exchange is None:
            exchange = Exchange(request)
            self._queue.append(exchange)
            self._stir()
        exchange.unheard = False
        try:
            await asyncio.shield(exchange.answered)
        except asyncio.CancelledError:
            exchange.unheard = True
            raise
        return exchange

    def end(self, ending: Ending) -> None:
        """After the requests that came before. Raises `Problem` where the session is over or ended already."""
        self._finished()
        self._ending = ending
        self._stir()

    def break_off(self, fault: str) -> None:
        """End it for its client, whatever that said."""
        self._ending = Ending(fault=fault)
        self._stir()

    async def next(self) -> Exchange | Ending:
        """The next request, or how it ended."""
        while not self._queue and self._ending is None:
            self._stirred.clear()
            await self._stirred.wait()
        if self._queue:
            self._last = self._queue.popleft()
            return self._last
        assert self._ending is not None
        return self._ending

    def deliver(self, exchange: Exchange) -> None:
        self.answers += len(exchange.choices)
        if not exchange.answered.done():
            exchange.answered.set_result(exchange.choices)

    def refuse(self, problem: Problem) -> None:
        """Answer what is open, and whatever may still come, with `problem`; only an ending is still taken."""
        self.refused = problem
        for exchange in (*self._queue, self._last):
            if exchange is not None and not exchange.answered.done():
                exchange.answered.set_exception(problem)
                # Nobody may be waiting for it any more, and asyncio would complain of an error that nobody saw.
                exchange.answered.exception()
        self._queue.clear()
        self._stir()

    def close(self, problem: Problem) -> None:
        """As `refuse`; no ending is taken either."""
        self._closed = problem
        self.refuse(problem)

    async def ending(self) -> Ending:
        """How it ends, whatever is still asked."""
        while self._ending is None:
            self._stirred.clear()
            await self._stirred.wait()
        return self._ending

    def _finished(self) -> None:
        if self._closed is not None:
            raise self._closed
        if self._ending is not None:
            raise Problem(409, f"the session {self.name} was finished; begin another.", code="session_over")

    def _stir(self) -> None:
        self._stirred.set()
