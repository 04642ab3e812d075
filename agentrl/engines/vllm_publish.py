"""Brings the learner's weights into a running vLLM server, under the requests in flight.

Nothing is sampled from weights that are not proved (`vllm_proof`): requests are held until they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from agentrl.engines import vllm_proof
from agentrl.engines.vllm_api import VllmApi
from agentrl.engines.vllm_proof import Expected, Probe
from agentrl.engines.vllm_server import VllmEngine
from agentrl.errors import InfrastructureFault
from agentrl.types import Floats, TokenIds

if TYPE_CHECKING:
    import torch

    from agentrl.engines.vllm_buffer import Layout, WeightBuffer

T = TypeVar("T")
ATTEMPTS = 2
HEAD = "lm_head.weight"


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """A version as it lies in shared memory."""

    version: int
    path: Path
    bytes: int
    expected: asyncio.Task[Expected]
    "Worked out while the server loads."


@dataclass(frozen=True, slots=True)
class PublishReport:
    version: int
    bytes: int
    write_seconds: float
    "Until the weights lay in shared memory; the server ended its step meanwhile."
    swap_seconds: float
    "How long sampling stood still: write, load, pack, compare the tensors, forget the prefix cache, probe."
    verify_seconds: float
    "The part of it that the probe took."
    mismatch: float
    "Mean |engine - learner| log-probability over the probe, in nats."


class VllmPublisher:
    """Implements `protocols.WeightPublisher` for one `VllmEngine`, and brings the last version back after a restart.

    `probe` gives the learner's log-probability (nats, temperature 1) of each token given those before it, entry 0
    being 0, under the tensors that are being published. It is called in a thread.
    """

    def __init__(self, engine: VllmEngine, folder: Path | str, probe: Callable[[TokenIds], Floats]) -> None:
        from agentrl.engines.vllm_buffer import buffer_folders

        self.report: PublishReport | None = None
        self._engine = engine
        self._score = probe
        self._folders = buffer_folders(Path(folder))
        self._buffer: WeightBuffer | None = None
        self._changed: set[str] | None = None
        "Tensors written since the server was last proved; None where all must be loaded."
        self._last: PublishedWeights | None = None
        self._lock = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "publish")
        engine.on_restart = self._restore

    async def publish(self, version: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """After it returns, every new token is sampled from `tensors`; requests in flight went on with them."""
        started = time.perf_counter()
        # While the weights are written the server comes to the end of its step.
        holding = asyncio.create_task(self._hold())
        try:
            weights = await self.write(version, tensors)
        except BaseException:
            await self._let_go(holding)
            raise
        written = time.perf_counter()
        faults: list[str] = []
        self._engine.withhold()
        try:
            held_since = await holding
            for _ in range(ATTEMPTS):
                try:
                    # A server that died meanwhile is restarted, and `_restore` has then installed these very weights.
                    await self._engine.until_ready()
                    await self._install(weights, written - started, held_since)
                    break
                except InfrastructureFault as fault:
                    faults.append(str(fault))
                    await self._engine.settle()
            else:
                raise InfrastructureFault(
                    f"version {version} did not reach the vLLM server in {ATTEMPTS} attempts: {' | '.join(faults)}"
                )
        except BaseException as error:
            self._engine.distrust(f"the vLLM server holds weights that are not verified: {error}")
            # Requests that are still held run to their end, and are refused there.
            await self._let_go(holding)
            raise
        finally:
            # The learner's weights may change once this has returned.
            await asyncio.gather(weights.expected, return_exceptions=True)
        self._engine.trust()

    async def write(self, version: int, tensors: Mapping[str, torch.Tensor]) -> PublishedWeights:
        """Into shared memory, over the last version; a server that starts again meanwhile waits for this one."""
        async with self._lock:
            await self._forget()
            buffer = self._buffer = await self._in_thread(partial(self._filled, tensors))
            expected = asyncio.create_task(
                self._in_thread(partial(vllm_proof.expect, version, buffer.tensors, self._probe()))
            )
            self._last = PublishedWeights(version, buffer.path, buffer.bytes, expected)
            return self._last

    async def verify(self, weights: PublishedWeights) -> float:
        """Mean |difference| of the probe. Raises `InfrastructureFault` where the server computes with anything else."""
        api, probe = self._engine.api, self._probe()
        shown = await vllm_proof.fingerprints_of(api, weights.path, weights.version)
        vllm_proof.check_fingerprints(shown, await weights.expected)
        return vllm_proof.check_probe(
            await vllm_proof.probe_scores(api, weights.version, probe), await weights.expected, probe
        )

    async def close(self) -> None:
        """Removes the file; a restart of the server can then no longer bring the weights back."""
        self._engine.on_restart = None
        await self._forget()
        self._buffer = None
        for folder in self._folders:
            await asyncio.to_thread(shutil.rmtree, folder, True)
        self._thread.shutdown()

    async def _hold(self) -> float:
        """When sampling stood still."""
        await self._engine.hold()
        return time.perf_counter()

    async def _let_go(self, holding: asyncio.Task[float]) -> None:
        await asyncio.gather(holding, return_exceptions=True)
        with contextlib.suppress(InfrastructureFault):
            await self._engine.release()

    async def _restore(self) -> None:
        async with self._lock:
            weights, self._changed = self._last, None
        if weights is None and self._buffer is not None:
            raise InfrastructureFault("the weights in shared memory are half-written; the server cannot get them back.")
        if weights is not None:
            await self._install(weights, 0.0, time.perf_counter())
            self._engine.trust()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Always the same one: each would keep memory and a pool of compute threads of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _forget(self) -> None:
        """The buffer may be written again, once nobody reads it."""
        weights, self._last = self._last, None
        if weights is not None:
            await asyncio.gather(weights.expected, return_exceptions=True)

    async def _install(self, weights: PublishedWeights, write_seconds: float, held_since: float) -> None:
        names: list[str] | None = None
        mismatch, probe_seconds = 0.0, 0.0

        async def load(api: VllmApi) -> None:
            answer = await api.call_worker("agentrl_install", [str(weights.path), names, weights.version])
            if answer["missing"]:
                raise InfrastructureFault(
                    f"version {weights.version} lacks {len(answer['missing'])} of the server's parameters: "
                    f"{', '.join(answer['missing'][:5])}."
                )
            vllm_proof.check_fingerprints(answer, await asyncio.shield(weights.expected))

        async def check(api: VllmApi) -> None:
            nonlocal mismatch, probe_seconds
            began, probe = time.perf_counter(), self._probe()
            scores = await vllm_proof.probe_scores(api, weights.version, probe)
            mismatch = vllm_proof.check_probe(scores, await asyncio.shield(weights.expected), probe)
            probe_seconds = time.perf_counter() - began

        async with self._lock:
            names = None if self._changed is None else sorted(self._changed)
            # Until it is proved, nothing is known of what the server holds.
            self._changed = None
            # Both proofs while sampling is held: nothing is sampled from weights that are not verified.
            await self._engine.swap(weights.version, load, check)
            self._changed = set()
            held = time.perf_counter() - held_since
            self.report = PublishReport(weights.version, weights.bytes, write_seconds, held, probe_seconds, mismatch)

    def _filled(self, tensors: Mapping[str, torch.Tensor]) -> WeightBuffer:
        """The tensors in the engine's dtype in shared memory: in the old place where names and shapes are the same."""
        from agentrl.engines.vllm_buffer import header_of, new_buffer

        kept = _without_tied_head(tensors)
        layout = _layout(kept, self._engine.options.dtype)
        buffer = self._buffer
        if buffer is None or buffer.header != header_of(layout):
            self._buffer, self._changed = None, None
            buffer = new_buffer(self._folders, layout)
        before, self._changed = self._changed, None
        changed = buffer.fill(kept)
        self._changed = before if before is None else before | changed
        return buffer

    def _probe(self) -> Probe:
        """Known once the engine has started."""
        engine = self._engine
        tokens = vllm_proof.probe_tokens(engine.vocabulary, engine.max_context)
        return Probe(tokens, self._score, vllm_proof.TOLERANCE.get(engine.options.dtype, 0.3))


def _without_tied_head(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All but an output head that is the embedding by another name."""
    kept: dict[str, torch.Tensor] = {}
    places: set[tuple[int, torch.Size]] = set()
    # The head last: of two names for one tensor the embedding's is the one to keep.
    for name in sorted(tensors, key=lambda name: (name.endswith(HEAD), name)):
        place = (tensors[name].data_ptr(), tensors[name].shape)
        if name.endswith(HEAD) and place in places:
            continue
        places.add(place)
        kept[name] = tensors[name]
    return kept


def _layout(tensors: Mapping[str, torch.Tensor], dtype: str) -> Layout:
    import torch

    floating: torch.dtype = getattr(torch, dtype)
    return {name: (t.shape, floating if t.is_floating_point() else t.dtype) for name, t in tensors.items()}
