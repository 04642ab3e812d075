"""A clock that moves only while nobody has anything to do: `@still_clock` over an async test that waits.

However busy the machine is, what comes before a deadline comes before it; and an hour of waiting takes no time.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

P = ParamSpec("P")


class _Selector(selectors.DefaultSelector):
    """Where an event loop waits for its next timer, the timer's moment is made to have come."""

    now = 0.0
    away = 0
    "Calls in threads that have not returned: the clock stands until they have."

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or self.away:
            return super().select(timeout if timeout == 0 else None)
        found = super().select(0)
        if not found:
            self.now += timeout
        return found


class _Loop(asyncio.SelectorEventLoop):
    """For tests without sockets: of what comes from other processes no clock can know."""

    def __init__(self) -> None:
        self._waits = _Selector()
        super().__init__(self._waits)

    def time(self) -> float:
        return self._waits.now

    def run_in_executor(self, executor: Any, function: Any, *arguments: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = super().run_in_executor(executor, function, *arguments)
        self._waits.away += 1
        future.add_done_callback(self._back)
        return future

    def _back(self, _: object) -> None:
        self._waits.away -= 1


def still_clock(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    @functools.wraps(test)
    def played(*arguments: P.args, **named: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            runner.run(test(*arguments, **named))

    return played
