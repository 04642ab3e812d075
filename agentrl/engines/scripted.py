"""An engine that replays a script: for tests of everything above an engine, and for benchmarks of the driver.

Its completions keep every rule of a real one: limits, stop tokens, versions, faults, pauses and cancellation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from agentrl.errors import InfrastructureFault, InvalidDataError
from agentrl.protocols import EngineHealth, GenerateRequest
from agentrl.types import Completion, Finish, Floats, TokenIds, token_ids

Reply = Callable[[TokenIds], Sequence[int]] | Sequence[Sequence[int]]


class ScriptedEngine:
    """Answers prompt number n (from 0) with `reply(prompt)`, or with `reply[n]`.

    A call takes `latency` seconds, at whose end all its tokens are sampled, each with log-probability `logprob` and
    the version of that moment. `faults` maps call numbers to what is raised in place of an answer; the calls in
    `hangs` wait until they are cancelled or the engine is closed.
    """

    trainable = True

    def __init__(
        self,
        reply: Reply,
        *,
        latency: float = 0.0,
        logprob: float = -1.0,
        max_context: int = 4096,
        faults: Mapping[int, Exception] | None = None,
        hangs: Collection[int] = (),
    ) -> None:
        self.max_context = max_context
        self.calls = 0
        "Calls of `generate` so far."
        self.most_running = 0
        self.sessions: set[str] = set()
        "Sessions that were used and not forgotten."
        self._reply, self._latency, self._logprob = reply, latency, logprob
        self._faults, self._hangs = dict(faults or {}), frozenset(hangs)
        self._version = 0
        self._running = 0
        self._waiting = 0
        self._closed = asyncio.Event()
        self._sampling = asyncio.Event()
        self._sampling.set()

    @property
    def version(self) -> int:
        return self._version

    def set_version(self, version: int) -> None:
        self._version = version

    async def start(self) -> None:
        return None

    async def generate(self, request: GenerateRequest) -> Completion:
        call = self.calls
        self.calls += 1
        self._check_open()
        if request.session:
            self.sessions.add(request.session)
        self._running += 1
        self.most_running = max(self.most_running, self._running)
        try:
            await asyncio.sleep(self._latency)
            if call in self._hangs:
                await self._closed.wait()
            if not self._sampling.is_set():
                await self._wait_for_resume()
            self._check_open()
            if call in self._faults:
                raise self._faults[call]
            return self._complete(call, request)
        finally:
            self._running -= 1

    async def score(self, tokens: TokenIds) -> Floats:
        logprobs = np.full(len(tokens), self._logprob, np.float32)
        logprobs[:1] = 0.0
        return logprobs

    async def pause(self) -> None:
        self._sampling.clear()

    async def resume(self) -> None:
        self._sampling.set()

    async def forget(self, session: str) -> None:
        self.sessions.discard(session)

    async def health(self) -> EngineHealth:
        closed = self._closed.is_set()
        return EngineHealth(not closed, "closed" if closed else "", self._running - self._waiting, self._waiting)

    async def close(self) -> None:
        self._closed.set()
        self._sampling.set()

    async def _wait_for_resume(self) -> None:
        self._waiting += 1
        try:
            await self._sampling.wait()
        finally:
            self._waiting -= 1

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise InfrastructureFault("the scripted engine was closed. Start a new one.")

    def _complete(self, call: int, request: GenerateRequest) -> Completion:
        if callable(self._reply):
            scripted = self._reply(request.tokens)
        elif call < len(self._reply):
            scripted = self._reply[call]
        else:
            raise InvalidDataError(f"the script has {len(self._reply)} replies and this is call {call} (from 0).")
        room = min(request.sampling.max_tokens, self.max_context - len(request.tokens))
        tokens = token_ids(scripted)[: max(room, 0)]
        stop = next((i for i, t in enumerate(tokens.tolist()) if t in request.sampling.stop_token_ids), None)
        if stop is not None:
            tokens = tokens[: stop + 1]
        whole = stop is not None or len(tokens) == len(scripted)
        logprobs = np.full(len(tokens), self._logprob, np.float32)
        versions = np.full(len(tokens), self._version, np.int32)
        alternatives: tuple[Mapping[int, float], ...] = ()
        if request.sampling.top_logprobs:
            alternatives = tuple({int(token): self._logprob} for token in tokens)
        return Completion(tokens, logprobs, versions, Finish.STOP if whole else Finish.LENGTH, 0, alternatives)
