"""An engine in this process over a `transformers` causal LM: the learner's own module, or a copy.

Requests are batched continuously in one worker thread; the keys and values of an episode are kept from step to step.
Every token is labelled with the version of the weights that sampled it, and no key outlives its weights.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable

import numpy as np
import torch

from agentrl.engines.transformers_forward import view_of
from agentrl.engines.transformers_requests import Job, Request, Score
from agentrl.engines.transformers_worker import Limits, Worker
from agentrl.errors import ConfigError, InfrastructureFault, InvalidDataError
from agentrl.protocols import EngineHealth, GenerateRequest, LearnerSide, WeightPublisher
from agentrl.types import Completion, Finish, Floats, TokenIds, token_ids

CLOSE_SECONDS = 30.0


class TransformersEngine:
    """Samples from `model`, whose parameters it shares: what the learner writes is what the engine reads.

    `lock` must also be held by whoever writes the weights (the learner's optimiser step), so that no pass runs while
    they change; `set_version` then names the new weights. An engine with weights of its own is
    `TransformersEngine(copy.deepcopy(model))` with a `CopiedWeights` publisher.

    `max_batch` is the most sequences in one forward pass; keys and values of twice as many episodes are kept, least
    recently used first to go, and of idle episodes at most `cache_tokens` tokens. `gather` is how long, in seconds,
    an idle engine waits for another request before it starts a batch.
    """

    trainable = True

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        max_context: int | None = None,
        max_batch: int = 128,
        cache_tokens: int | None = None,
        lock: threading.Lock | None = None,
        gather: float = 0.001,
    ) -> None:
        config = getattr(model, "config", None)
        longest = getattr(config, "max_position_embeddings", None)
        if max_context is None and longest is None:
            raise ConfigError(f"{type(model).__name__} does not say how long its context is; pass max_context.")
        self.max_context = int(max_context if max_context is not None else longest)  # type: ignore[arg-type]
        if longest is not None and self.max_context > longest:
            raise ConfigError(
                f"max_context is {self.max_context} and the model's positions end at {longest}. Lower max_context, or "
                "take a model with a longer context."
            )
        if self.max_context < 2 or max_batch < 1:
            raise ConfigError(
                f"max_context is {self.max_context} and max_batch {max_batch}; at least 2 and 1 are needed. Raise them."
            )
        self.lock = lock if lock is not None else threading.Lock()
        self.source = model
        self.model = view_of(model, self.max_context)
        self._vocabulary = int(self.model.get_input_embeddings().num_embeddings)
        self._worker = Worker(self.model, Limits(self.max_context, max_batch, cache_tokens, gather), self.lock)
        self._started = False

    @property
    def version(self) -> int:
        return self._worker.version

    async def start(self) -> None:
        if not self._started:
            self._started = True
            self._worker.start()

    async def generate(self, request: GenerateRequest) -> Completion:
        """Where the prompt fills the context, an empty completion that finished for length."""
        tokens = self._checked(request.tokens)
        if request.images:
            raise InvalidDataError(f"the request has {len(request.images)} images; the transformers engine reads text.")
        if not len(tokens):
            raise InvalidDataError("the prompt is empty; sampling needs at least one token.")
        if len(tokens) >= self.max_context:
            return Completion(token_ids(()), np.zeros(0, np.float32), token_ids(()), Finish.LENGTH)
        seed = request.sampling.seed if request.sampling.seed is not None else secrets.randbits(63)
        loop = asyncio.get_running_loop()
        completion = await self._submit(
            Request(tokens, request.sampling, request.session, seed, loop, loop.create_future())
        )
        assert isinstance(completion, Completion)
        return completion

    async def score(self, tokens: TokenIds) -> Floats:
        tokens = self._checked(tokens)
        if len(tokens) > self.max_context:
            raise InvalidDataError(
                f"{len(tokens)} tokens do not fit the context of {self.max_context}. Raise the engine's max_context."
            )
        if not len(tokens):
            return np.zeros(0, np.float32)
        loop = asyncio.get_running_loop()
        logprobs = await self._submit(Score(tokens, loop, loop.create_future()))
        assert isinstance(logprobs, np.ndarray)
        return logprobs

    async def pause(self) -> None:
        """Returns when no pass is running; requests in flight keep what they have sampled."""
        await self._hold(True)

    async def resume(self) -> None:
        await self._hold(False)

    async def forget(self, session: str) -> None:
        self._worker.forget(session)

    def set_version(self, version: int, write: Callable[[], None] = lambda: None) -> None:
        """Name the weights that `write` leaves (or that lie there already) and drop every cached key and value.

        Blocks while a pass runs; `write` is called under the lock. Requests in flight go on: their prompts are
        computed anew, and their next tokens carry the new version.
        """
        self._worker.set_version(version, write)

    async def health(self) -> EngineHealth:
        worker = self._worker
        if not self._started:
            return EngineHealth(False, "not started")
        detail = "" if worker.failure is None else f"{type(worker.failure).__name__}: {worker.failure}"
        if not worker.alive:
            return EngineHealth(False, detail or "closed")
        return EngineHealth(worker.failure is None, detail, worker.running, worker.waiting)

    async def close(self) -> None:
        """Fails what is in flight. Raises `InfrastructureFault` where a forward pass does not end."""
        if not await asyncio.to_thread(self._worker.stop, CLOSE_SECONDS):
            raise InfrastructureFault(
                f"the transformers engine is still in a forward pass, or waits for the weights lock, after "
                f"{CLOSE_SECONDS:g} s. Does the learner hold the lock?"
            )

    def publisher(self, learner: LearnerSide) -> WeightPublisher:
        """Shared weights where this engine samples from the learner's own module, copied ones otherwise."""
        from agentrl.engines.transformers_publish import CopiedWeights, SharedWeights

        return SharedWeights(self) if self.source is learner.module else CopiedWeights(self)

    async def _submit(self, job: Job) -> object:
        if not self._started:
            raise InfrastructureFault("the transformers engine was not started: await engine.start() first.")
        self._worker.submit(job)
        try:
            return await job.future
        except asyncio.CancelledError:
            self._worker.cancel(job)
            raise

    async def _hold(self, paused: bool) -> None:
        if not self._started:
            raise InfrastructureFault("the transformers engine was not started: await engine.start() first.")
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def acknowledge() -> None:
            loop.call_soon_threadsafe(done.set)

        self._worker.hold(paused, acknowledge)
        await done.wait()

    def _checked(self, tokens: TokenIds) -> TokenIds:
        # An id out of range is an error here; in a CUDA kernel it would take the whole process down.
        if len(tokens) and not (int(tokens.min()) >= 0 and int(tokens.max()) < self._vocabulary):
            raise InvalidDataError(
                f"token ids from {int(tokens.min())} to {int(tokens.max())} were given; "
                f"the model knows 0 to {self._vocabulary - 1}. Is it the tokenizer of this model?"
            )
        return token_ids(tokens)
