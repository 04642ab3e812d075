"""vLLM's scheduler with one rule more: while sampling is held, a request of negative priority is served, alone.

So the probe of a publish tries the new weights through the whole server before any request goes on with them, and
shares no step with requests that compute their prompts anew. Imported by vLLM's engine process.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler


class _ProbesWhileHeld:
    """Before `Scheduler` in the order of methods; needs the priority policy, where the probe leads the queue."""

    _pause_state: PauseState
    max_num_active_reqs: int
    running: list[Any]
    waiting: Any

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        if not self._probes():
            return super().schedule(throttle_prefills)  # type: ignore[misc]
        places, self.max_num_active_reqs = self.max_num_active_reqs, 1
        self._pause_state = PauseState.UNPAUSED
        try:
            return super().schedule(throttle_prefills)  # type: ignore[misc]
        finally:
            self._pause_state, self.max_num_active_reqs = PauseState.PAUSED_ALL, places

    def get_num_unfinished_requests(self) -> int:
        """What the engine has to work on: it sleeps at 0."""
        return self._probes() or super().get_num_unfinished_requests()  # type: ignore[misc]

    def _probes(self) -> int:
        """How many can be served; none while a request that is held has a place, as before a reset of the cache."""
        if self._pause_state is not PauseState.PAUSED_ALL or any(request.priority >= 0 for request in self.running):
            return 0
        return len(self.running) + int(bool(self.waiting) and self.waiting.peek_request().priority < 0)


class ProbingScheduler(_ProbesWhileHeld, Scheduler):  # type: ignore[misc]
    """For devices without asynchronous scheduling."""


class AsyncProbingScheduler(_ProbesWhileHeld, AsyncScheduler):  # type: ignore[misc]
    """Schedules the next step while one is computed."""
