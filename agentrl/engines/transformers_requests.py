"""What the transformers worker is asked for, and what sampling needs to know of each slot's request.

An outcome is delivered to the event loop that asked, all outcomes of a pass in one call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agentrl.errors import InfrastructureFault
from agentrl.types import SamplingParams, TokenIds


@dataclass(slots=True, eq=False)
class Request:
    """One `generate` call on its way through the worker."""

    prompt: TokenIds
    sampling: SamplingParams
    session: str
    seed: int
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    cached: int = 0
    top: list[dict[int, float]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Score:
    """One `score` call."""

    tokens: TokenIds
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


Job = Request | Score


@dataclass(frozen=True, slots=True, eq=False)
class Failure:
    """Why a job has no result. Each job gets an exception of its own: one that is raised twice mixes tracebacks."""

    message: str
    cause: BaseException | None = None

    def exception(self) -> InfrastructureFault:
        fault = InfrastructureFault(self.message)
        fault.__cause__ = self.cause
        return fault


class Rows:
    """Columns with an entry per slot, so that a batch is handled in a few array operations."""

    def __init__(self, count: int, length: int) -> None:
        self.logprobs = np.zeros((count, length), np.float32)
        self.versions = np.zeros((count, length), np.int32)
        self.start = np.zeros(count, np.int64)
        self.limit = np.zeros(count, np.int64)
        self.seeds = np.zeros(count, np.uint64)
        self.temperatures = np.zeros(count, np.float64)
        self.alternatives = np.zeros(count, np.int64)
        self.stops = np.full((count, 1), -1, np.int32)

    def set(self, slot: int, request: Request) -> None:
        sampling, length = request.sampling, len(request.prompt)
        self.start[slot] = length
        self.limit[slot] = min(length + sampling.max_tokens, self.logprobs.shape[1])
        self.seeds[slot] = request.seed % 2**64
        self.temperatures[slot] = sampling.temperature
        self.alternatives[slot] = sampling.top_logprobs
        stops = sampling.stop_token_ids
        if len(stops) > self.stops.shape[1]:
            missing = len(stops) - self.stops.shape[1]
            self.stops = np.pad(self.stops, ((0, 0), (0, missing)), constant_values=-1)
        self.stops[slot] = -1
        self.stops[slot, : len(stops)] = stops


def deliver(outcomes: Iterable[tuple[Job, object]]) -> None:
    """Resolve each job's future with its outcome, in the event loop that it came from."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], object]]] = {}
    for job, outcome in outcomes:
        by_loop.setdefault(job.loop, []).append((job.future, outcome))
    for loop, mine in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, mine)
        except RuntimeError:  # The loop has closed: nobody waits any more.
            continue


def _resolve(outcomes: list[tuple[asyncio.Future[Any], object]]) -> None:
    for future, outcome in outcomes:
        if future.done():
            continue
        if isinstance(outcome, Failure):
            future.set_exception(outcome.exception())
        else:
            future.set_result(outcome)
