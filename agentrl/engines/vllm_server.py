"""The vLLM engine: a server on this machine that we start, watch, restart and stop.

Token ids go in; token ids, log-probabilities and versions come out. An answer is handed out only once the weights
that are loaded by then are verified, and while the server is down nothing is answered at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from agentrl.engines.http import HttpFault
from agentrl.engines.vllm_api import (
    ServerOptions,
    ServerSettings,
    VllmApi,
    best_dtype,
    server_command,
    server_environment,
)
from agentrl.engines.vllm_process import GRACE_SECONDS, ProcessFiles, ServerProcess, check_port
from agentrl.errors import ConfigError, InfrastructureFault, InvalidDataError, MissingDependencyError
from agentrl.ports import free_port
from agentrl.protocols import EngineHealth, GenerateRequest, LearnerSide, WeightPublisher
from agentrl.types import Completion, Finish, Floats, TokenIds, token_ids

if TYPE_CHECKING:
    from agentrl.engines.vllm_publish import VllmPublisher

POLL_SECONDS = 0.1
DEFAULTS = ServerSettings()
T = TypeVar("T")
RESTART_WINDOW_SECONDS = 600.0


class VllmEngine:
    """Implements `protocols.Engine` with a vLLM server as its child.

    `dtype` "auto" is bfloat16 where the hardware has it, else float32. A server that dies is restarted; `on_restart` is
    awaited before it serves again and brings the published weights back.
    """

    trainable = True

    def __init__(
        self,
        model_path: Path | str,
        *,
        log_folder: Path | str,
        dtype: str = "auto",
        device: Literal["cpu", "cuda"] = "cpu",
        max_context: int = 2048,
        max_sequences: int = 64,
        server: ServerSettings = DEFAULTS,
    ) -> None:
        chosen = best_dtype(device) if dtype == "auto" else dtype
        self.options = ServerOptions(Path(model_path), chosen, device, max_context, max_sequences, server)
        self.max_context = max_context
        self.on_restart: Callable[[], Awaitable[None]] | None = None
        self._folder = Path(log_folder)
        self._files = ProcessFiles(self._folder / "vllm.log", self._folder / "vllm.label.json")
        self._settings = server
        self._version = 0
        self._restarts: deque[float] = deque()
        self._process: ServerProcess | None = None
        self._api: VllmApi | None = None
        self._publisher: VllmPublisher | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._verified = asyncio.Event()
        self._verified.set()
        self._down = "it was not started"
        self._distrusted = ""
        self._paused = False
        self._held = False
        self._holding = asyncio.Lock()
        self._running = 0
        self._vocabulary = 0

    @property
    def version(self) -> int:
        return self._version

    @property
    def vocabulary(self) -> int:
        """Number of token ids, known after `start`."""
        return self._vocabulary

    @property
    def api(self) -> VllmApi:
        """The endpoints of the running server, for the publisher. Raises `InfrastructureFault` where there is none."""
        if self._api is None:
            raise InfrastructureFault(f"the vLLM server cannot be used: {self._down}.")
        return self._api

    async def start(self) -> None:
        """Returns when the server answers. Raises `InfrastructureFault` with the log's last lines where it does not."""
        if importlib.util.find_spec("vllm") is None:
            raise MissingDependencyError(
                "vLLM is not installed. `make test` installs its CPU build; on a GPU: pip install vllm"
            )
        self._vocabulary = _vocabulary(self.options.model)
        try:
            await self._launch()
        except BaseException:
            await self.close()
            raise
        self._down = ""
        self._ready.set()
        self._watcher = asyncio.create_task(self._watch(), name="vllm watcher")

    async def generate(self, request: GenerateRequest) -> Completion:
        """Where the prompt fills the context, an empty completion that finished for length."""
        if request.images:
            raise InvalidDataError(f"the request holds {len(request.images)} images; this engine reads tokens only.")
        self._check_tokens(request.tokens)
        if len(request.tokens) >= self.max_context:
            return Completion(token_ids(()), np.zeros(0, np.float32), token_ids(()), Finish.LENGTH)
        api = await self._serving()
        self._running += 1
        try:
            completion = await self._call(api.generate(request))
        finally:
            self._running -= 1
        await self._trusted()
        return completion

    async def score(self, tokens: TokenIds) -> Floats:
        """Scores up to `max_context - 1` tokens: vLLM must have room to sample one."""
        if len(tokens) >= self.max_context:
            raise InvalidDataError(f"{len(tokens)} tokens cannot be scored: at most {self.max_context - 1} can.")
        self._check_tokens(tokens)
        api = await self._serving()
        scores = await self._call(api.score(tokens))
        await self._trusted()
        return scores

    async def pause(self) -> None:
        self._paused = True
        api = await self._serving()
        async with self._holding:
            await self._call(api.pause())

    async def resume(self) -> None:
        self._paused = False
        api = await self._serving()
        # A swap that is under way resumes when it is done, and not before.
        async with self._holding:
            self._held = False
            await self._call(api.resume())

    async def forget(self, session: str) -> None:
        """Nothing to do: the prefix cache drops what was used longest ago."""

    async def health(self) -> EngineHealth:
        detail = self._down or self._distrusted
        if not detail:
            try:
                await self.api.check_health()
            except InfrastructureFault as fault:
                detail = str(fault)
        return EngineHealth(ok=not detail, detail=detail, running=self._running)

    async def close(self) -> None:
        """Stops the server and everything it started. May be called twice."""
        self._down = self._down or "it was closed"
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
        # Whoever still waits for the server learns that it is closed.
        self._ready.set()
        self._verified.set()
        # First, since the server waits for open connections before it ends.
        if self._api is not None:
            await self._api.close()
            self._api = None
        if self._process is not None:
            await self._process.stop()
        if self._publisher is not None:
            await self._publisher.close()

    def publisher(self, learner: LearnerSide) -> WeightPublisher:
        """Through a file on shared memory, verified against the learner's own log-probabilities."""
        from agentrl.engines.vllm_publish import VllmPublisher

        self._publisher = VllmPublisher(self, learner.folder, learner.probe)
        return self._publisher

    async def swap(
        self,
        version: int,
        load: Callable[[VllmApi], Awaitable[None]],
        check: Callable[[VllmApi], Awaitable[None]] | None = None,
    ) -> None:
        """New weights under the requests in flight: they are held, go on with the new ones, and say so in `versions`.

        The prefix cache is forgotten, theirs included, so that no token is sampled from keys and values of old weights.
        `check` tries the new weights out before anyone goes on. Ends as the caller wants it: resumed, or paused. Where
        it raises, requests stay held: they go on with whole weights, after another swap, or are let go by `release`.
        """
        api = self.api
        async with self._holding:
            if not self._held:
                await api.pause()
                self._held = True
            await load(api)
            await asyncio.gather(api.reset_prefix_cache(), api.set_version(version))
            self._version = version
            if check is not None:
                await check(api)
        await self.release()

    async def hold(self) -> None:
        """Sampling stops at the end of the step that is being computed, until a swap or `release`."""
        # A server that is down is found out by the swap.
        with contextlib.suppress(InfrastructureFault):
            async with self._holding:
                await self.api.pause()
                self._held = True

    async def release(self) -> None:
        """Sampling goes on, unless the caller paused it."""
        async with self._holding:
            self._held = False
            if not self._paused:
                await self.api.resume()

    async def hold_if_paused(self) -> None:
        if self._paused:
            await self.api.pause()

    def withhold(self) -> None:
        """No answer is handed out until `trust` or `distrust`."""
        self._verified.clear()

    def trust(self) -> None:
        self._distrusted = ""
        self._verified.set()

    def distrust(self, reason: str) -> None:
        """Every answer from now on is an `InfrastructureFault`, until a later `trust`."""
        self._distrusted = reason
        self._verified.set()

    async def until_ready(self) -> None:
        """Returns when the server serves, after a restart if need be. Raises `InfrastructureFault` if it will not."""
        try:
            async with asyncio.timeout(self._settings.start_deadline):
                await self._ready.wait()
        except TimeoutError:
            raise InfrastructureFault(
                f"the vLLM server did not come back within {self._settings.start_deadline:g} s: {self._down}"
            ) from None
        if self._down:
            raise InfrastructureFault(f"the vLLM server is down: {self._down}")

    async def settle(self) -> None:
        """After a failed call: returns when the server answers, or is known to be down (its exit takes a moment)."""
        for _ in range(int(2 * GRACE_SECONDS / POLL_SECONDS)):
            if self._down or self._api is None:
                return
            try:
                await self._api.check_health(2.0)
                return
            except InfrastructureFault:
                await asyncio.sleep(POLL_SECONDS)

    async def _serving(self) -> VllmApi:
        if self._process is None:
            raise InfrastructureFault("the vLLM server was not started: `await engine.start()` comes first.")
        await self.until_ready()
        if self._distrusted:
            raise InfrastructureFault(self._distrusted)
        return self.api

    async def _trusted(self) -> None:
        await self._verified.wait()
        if self._distrusted:
            raise InfrastructureFault(self._distrusted)

    async def _call(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except HttpFault as fault:
            if fault.status in (None, 500, 503):
                await self.settle()
            if self._down:
                raise InfrastructureFault(f"the vLLM server died during a request: {self._down}") from fault
            raise

    async def _launch(self) -> None:
        if self._settings.port is not None:
            check_port(self._settings.port)
        port = self._settings.port or free_port()
        self._process = ServerProcess(
            "the vLLM server", server_command(self.options, port), server_environment(self.options), self._files
        )
        await asyncio.to_thread(self._process.start)
        old, self._api = self._api, VllmApi(port, self._settings.request_deadline)
        if old is not None:
            await old.close()
        until = time.monotonic() + self._settings.start_deadline
        while True:
            if self._process.exit_code is not None:
                raise InfrastructureFault(f"{self._process.obituary()}\nIt never answered.")
            try:
                await self._api.check_health(5.0)
                break
            except HttpFault as fault:
                if time.monotonic() > until:
                    raise InfrastructureFault(
                        f"the vLLM server did not answer within {self._settings.start_deadline:g} s ({fault}). "
                        f"Allow a longer start_deadline, or look at {self._files.log}."
                    ) from fault
                await asyncio.sleep(POLL_SECONDS)
        self._version, self._held = 0, False
        await self._api.set_version(self._version)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            process = self._process
            if process is None or process.exit_code is None:
                continue
            self._ready.clear()
            self._down = process.obituary()
            await self._restart()
            if self._down:
                self._ready.set()
                return

    async def _restart(self) -> None:
        """Clears `_down` where the server serves again."""
        while True:
            now = time.monotonic()
            while self._restarts and now - self._restarts[0] > RESTART_WINDOW_SECONDS:
                self._restarts.popleft()
            if len(self._restarts) >= self._settings.max_restarts:
                self._down += f"\nIt was restarted {len(self._restarts)} times in ten minutes; no more is tried."
                return
            self._restarts.append(now)
            try:
                await self._launch()
                if self.on_restart is not None:
                    await self.on_restart()
                await self.hold_if_paused()
            except Exception as error:
                # Whatever kept it from serving is told to everyone who waits; the next attempt may do better.
                self._down = f"restart failed: {error}"
                if self._process is not None:
                    await self._process.stop()
                continue
            self._down = ""
            self._ready.set()
            return

    def _check_tokens(self, tokens: TokenIds) -> None:
        if not len(tokens):
            raise InvalidDataError("the prompt is empty; sampling and scoring need at least one token.")
        low, high = int(tokens.min()), int(tokens.max())
        # vLLM does not check this without a tokenizer: one bad id kills its engine process.
        if self._vocabulary and (low < 0 or high >= self._vocabulary):
            raise InvalidDataError(
                f"token ids run from {low} to {high}; the model knows 0 to {self._vocabulary - 1}. "
                "Is the renderer that of another model?"
            )


def _vocabulary(model: Path) -> int:
    path = model / "config.json"
    try:
        config = json.loads(path.read_text())
        return int(config.get("vocab_size") or config["text_config"]["vocab_size"])
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no model at {model}: {path} is missing. `agentrl models` lists what is."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} names no vocab_size ({error}); is {model} a transformers model folder?") from error
