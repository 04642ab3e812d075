"""The thread behind the transformers engine: requests join and leave between forward passes.

It holds the weights lock whenever it reads weights or touches the cache, so an update never lands inside a pass, and
it resolves every job it was given: with a result, or with the fault that ended it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from agentrl.engines.transformers_cache import SlotCache
from agentrl.engines.transformers_forward import Forward, Integers
from agentrl.engines.transformers_requests import Failure, Job, Request, Rows, Score, deliver
from agentrl.engines.transformers_sampling import Sampled, sample, uniforms
from agentrl.engines.transformers_slots import Slots
from agentrl.types import Completion, Finish

# Longest wait, in gather windows, for requests that keep arriving.
GATHER_WINDOWS = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """The sizes that a worker is built for."""

    max_context: int
    max_batch: int
    cache_tokens: int | None
    gather: float


class Worker:
    """Owns slots, cache and jobs. Public methods may be called from any thread."""

    def __init__(self, model: Any, limits: Limits, lock: threading.Lock) -> None:
        # Twice the batch, so that a pass can run while as many episodes are out in their environments.
        count = 2 * limits.max_batch
        self.version = 0
        self.failure: BaseException | None = None
        self._limits = limits
        self._lock = lock
        self._parameters = list(model.parameters())
        self._slots = Slots(count, limits.max_context)
        self._rows = Rows(count, limits.max_context)
        self._cache = SlotCache(count, limits.max_context)
        self._forward = Forward(model, self._slots, self._cache)
        self._stamp = self._weights_stamp()
        self._active: dict[int, Request] = {}
        self._waiting: deque[Request] = deque()
        self._scores: deque[Score] = deque()
        self._outcomes: list[tuple[Job, object]] = []
        self._paused = False
        self._arrival = threading.Condition()
        "Guards what other threads write: `_incoming`, `_mail`, `_stopping`, `_ended`."
        self._incoming: list[Job] = []
        self._mail: list[Callable[[], None]] = []
        self._stopping = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="agentrl-transformers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not (self._ended or self._stopping)

    @property
    def running(self) -> int:
        return len(self._active)

    @property
    def waiting(self) -> int:
        return len(self._waiting) + len(self._scores) + len(self._incoming)

    def submit(self, job: Job) -> None:
        with self._arrival:
            if not (self._ended or self._stopping):
                self._incoming.append(job)
                self._arrival.notify()
                return
        deliver([(job, self._epitaph())])

    def cancel(self, job: Job) -> None:
        self._post(lambda: self._cancel(job))

    def forget(self, session: str) -> None:
        self._post(lambda: self._slots.forget(session))

    def hold(self, paused: bool, done: Callable[[], None]) -> None:
        """Stop or go on sampling; `done` is called, in whatever thread, when no pass is running."""

        def turn() -> None:
            self._paused = paused
            done()

        if not self._post(turn):
            done()

    def set_version(self, version: int, write: Callable[[], None]) -> None:
        """Between two passes: `write` the weights, name them, and forget every key and value of the old."""
        with self._lock:
            write()
            self.version = version
            self._new_weights()

    def stop(self, timeout: float) -> bool:
        """Fail what is waiting and end the thread; False where it did not end in time."""
        with self._arrival:
            self._stopping = True
            self._arrival.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _post(self, item: Callable[[], None]) -> bool:
        with self._arrival:
            if self._ended:
                return False
            self._mail.append(item)
            self._arrival.notify()
            return True

    # What follows runs in the thread.

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while self._wait():
                    with self._lock:
                        self._read_mail()
                        if self._has_work():
                            self._guarded_iteration()
                    self._deliver()
        except BaseException as error:
            self.failure = error
        finally:
            with self._arrival:
                self._ended = True
            self._read_mail()
            self._end_all(self._epitaph())
            self._deliver()

    def _wait(self) -> bool:
        """Until there is something to do; False where the engine is closing."""
        with self._arrival:
            while not (self._stopping or self._mail or self._incoming or self._has_work()):
                self._arrival.wait()
            # Episodes move in lock-step: after a batch of answers comes a batch of questions. To start with the
            # first of them would cost the others a pass.
            end = time.monotonic() + GATHER_WINDOWS * self._limits.gather
            while self._expects_more() and time.monotonic() < end:
                seen = len(self._incoming)
                self._arrival.wait(self._limits.gather)
                if len(self._incoming) == seen:
                    break
            return not self._stopping

    def _expects_more(self) -> bool:
        here = {job.session for job in (*self._incoming, *self._waiting) if isinstance(job, Request)}
        if self._stopping or self._paused or self._active or not here or len(self._incoming) >= self._limits.max_batch:
            return False
        known = self._slots.idle_sessions()
        return not known or bool(known - here)

    def _has_work(self) -> bool:
        return bool(self._scores or (not self._paused and (self._active or self._waiting)))

    def _read_mail(self) -> None:
        with self._arrival:
            incoming, self._incoming = self._incoming, []
            mail, self._mail = self._mail, []
        for job in incoming:
            if isinstance(job, Request):
                self._waiting.append(job)
            else:
                self._scores.append(job)
        for item in mail:
            item()

    def _guarded_iteration(self) -> None:
        try:
            if self._weights_stamp() != self._stamp:
                self._new_weights()
            self._iterate()
            self.failure = None
        except Exception as error:
            self.failure = error
            self._slots.drop()
            self._end_all(
                Failure(
                    f"the model failed in a forward pass: {type(error).__name__}: {error}. It ended "
                    f"{len(self._active)} running and {len(self._waiting) + len(self._scores)} waiting requests.",
                    error,
                )
            )

    def _iterate(self) -> None:
        if not self._paused:
            self._admit()
            if self._active:
                self._decode()
        if self._scores:
            self._score_next()
        if self._limits.cache_tokens is not None:
            self._slots.trim(self._limits.cache_tokens)

    def _admit(self) -> None:
        sources: dict[int, int] = {}
        longest = 0
        for _ in range(len(self._waiting)):
            if len(self._active) >= self._limits.max_batch:
                break
            request = self._waiting.popleft()
            claim = self._slots.claim(request.prompt, request.session)
            if claim is None:
                self._waiting.append(request)
                continue
            if claim.source != claim.slot:
                # Copies are made together below, so a source may itself be waiting for its own.
                sources[claim.slot] = sources.get(claim.source, claim.source)
                longest = max(longest, claim.cached)
            request.cached = claim.cached
            self._rows.set(claim.slot, request)
            self._active[claim.slot] = request
        if sources:
            self._cache.reserve(self._slots.top, longest)
            self._cache.copy_prefixes(list(sources.values()), list(sources), longest)

    def _decode(self) -> None:
        rows = np.sort(np.fromiter(self._active, np.int64, len(self._active)))
        for part in list(self._forward.passes(rows)):
            logits = self._forward.run(part)[:, -1]
            ready = self._slots.filled[part] == self._slots.known[part]
            if not ready.all():
                part, logits = part[ready], logits[torch.from_numpy(ready).to(logits.device)]
            if len(part):
                self._sample(part, logits)

    def _sample(self, rows: Integers, logits: torch.Tensor) -> None:
        slots, table = self._slots, self._rows
        at = slots.known[rows]
        top = int(table.alternatives[rows].max())
        sampled = sample(logits, table.temperatures[rows], uniforms(table.seeds[rows], at), top)
        if not np.isfinite(sampled.logprobs).all():
            rows, sampled = self._drop_broken(rows, sampled)
            at = slots.known[rows]
        slots.ids[rows, at] = sampled.tokens
        table.logprobs[rows, at] = sampled.logprobs
        table.versions[rows, at] = self.version
        slots.known[rows] = at + 1
        if top:
            self._note_alternatives(rows, sampled)
        stopped = (table.stops[rows] == sampled.tokens[:, None]).any(1)
        for i in np.flatnonzero(stopped | (at + 1 >= table.limit[rows])):
            self._finish(int(rows[i]), Finish.STOP if stopped[i] else Finish.LENGTH)

    def _note_alternatives(self, rows: Integers, sampled: Sampled) -> None:
        for i, slot in enumerate(rows):
            count = int(self._rows.alternatives[slot])
            if count:
                ids, logprobs = sampled.top_ids[i, :count].tolist(), sampled.top_logprobs[i, :count].tolist()
                self._active[int(slot)].top.append(dict(zip(ids, logprobs, strict=True)))

    def _finish(self, slot: int, finish: Finish) -> None:
        request = self._active.pop(slot)
        span = slice(int(self._rows.start[slot]), int(self._slots.known[slot]))
        completion = Completion(
            self._slots.ids[slot, span].copy(),
            self._rows.logprobs[slot, span].copy(),
            self._rows.versions[slot, span].copy(),
            finish,
            request.cached,
            tuple(request.top),
        )
        self._slots.release(slot)
        self._outcomes.append((request, completion))

    def _drop_broken(self, rows: Integers, sampled: Sampled) -> tuple[Integers, Sampled]:
        """End the requests whose logits are NaN, and clear what they left in the cache."""
        sound = np.isfinite(sampled.logprobs)
        for slot in rows[~sound].tolist():
            message = (
                f"the model of version {self.version} returned logits that are not finite after "
                f"{int(self._slots.known[slot])} tokens. Are its weights finite?"
            )
            self._outcomes.append((self._active.pop(slot), Failure(message)))
            self._slots.release(slot)
        self._slots.drop()
        self._cache.wipe()
        kept = Sampled(
            sampled.tokens[sound], sampled.logprobs[sound], sampled.top_ids[sound], sampled.top_logprobs[sound]
        )
        return rows[sound], kept

    def _score_next(self) -> None:
        tokens = self._scores[0].tokens
        slot = self._slots.claim_blank(tokens)
        if slot is None:
            return
        try:
            result = np.zeros(len(tokens), np.float32)
            row = np.array([slot])
            done = 0
            while done < len(tokens):
                count = int(self._forward.pending(row)[0])
                logits = self._forward.run(row, keep=count)[0].float()
                following = torch.from_numpy(tokens[done + 1 : done + count + 1].astype(np.int64)).to(logits.device)
                logprobs = torch.log_softmax(logits[: len(following)], -1).gather(1, following[:, None])
                result[done + 1 : done + 1 + len(following)] = logprobs[:, 0].cpu().numpy()
                done += count
            self._outcomes.append((self._scores.popleft(), result))
        finally:
            self._slots.release(slot)

    def _cancel(self, job: Job) -> None:
        if isinstance(job, Score):
            if job in self._scores:
                self._scores.remove(job)
            return
        if job in self._waiting:
            self._waiting.remove(job)
        for slot, request in self._active.items():
            if request is job:
                del self._active[slot]
                self._slots.release(slot)
                return

    def _weights_stamp(self) -> int:
        # PyTorch counts the in-place writes of every tensor, so an optimiser that wrote without telling is seen.
        return sum(parameter._version for parameter in self._parameters)

    def _new_weights(self) -> None:
        self._slots.drop()
        self._forward.refresh()
        self._stamp = self._weights_stamp()

    def _end_all(self, failure: Failure) -> None:
        jobs: list[Job] = [*self._active.values(), *self._waiting, *self._scores]
        self._outcomes += [(job, failure) for job in jobs]
        for slot in self._active:
            self._slots.release(slot)
        self._active.clear()
        self._waiting.clear()
        self._scores.clear()

    def _epitaph(self) -> Failure:
        reason = "it was closed" if self.failure is None or self._stopping else f"its thread died: {self.failure!r}"
        return Failure(f"the transformers engine has stopped: {reason}. Start a new engine.", self.failure)

    def _deliver(self) -> None:
        outcomes, self._outcomes = self._outcomes, []
        if outcomes:
            deliver(outcomes)
