"""Brings the learner's weights into a running vLLM server, and proves that the server computes with them.

Proof is exact and by number: checksums of every tensor that the worker holds, checksums of columns of what its linear
layers and its output head compute with, and log-probabilities of a fixed probe against the learner's own.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agentrl.engines.vllm_api import VllmApi
from agentrl.engines.vllm_server import VllmEngine
from agentrl.errors import InfrastructureFault
from agentrl.types import Floats, TokenIds

if TYPE_CHECKING:
    import torch

SHARED_MEMORY = Path("/dev/shm")
ATTEMPTS = 2
HEAD = "lm_head.weight"
EMBEDDING = "embed_tokens.weight"
# Bytes of one weight; 2 in the other dtypes.
BYTES = {"float32": 4}
# Largest mean |difference| in nats over the probe. Low-precision arithmetic differs between any two programs; there
# the exact checksums are what tells old weights from new ones.
TOLERANCE = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.3}


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """A version as it lies on disk, with what a server that serves it must show."""

    version: int
    path: Path
    held: Mapping[str, str]
    computed: Mapping[str, str]
    probe_logprobs: Floats


@dataclass(frozen=True, slots=True)
class PublishReport:
    version: int
    bytes: int
    write_seconds: float
    swap_seconds: float
    "How long sampling stood still: load, pack, compare the tensors, forget the prefix cache."
    verify_seconds: float
    "The probe; requests in flight compute their prompts anew beside it."
    mismatch: float
    "Mean |engine - learner| log-probability over the probe, in nats."


class VllmPublisher:
    """Implements `protocols.WeightPublisher` for one `VllmEngine`, and brings the last version back after a restart.

    `probe` gives the learner's log-probability (nats, temperature 1) of each token given those before it, entry 0
    being 0, under the tensors that are being published. It is called in a thread.
    """

    def __init__(
        self,
        engine: VllmEngine,
        folder: Path | str,
        probe: Callable[[TokenIds], Floats],
        *,
        probe_tokens: TokenIds | None = None,
        tolerance: float | None = None,
    ) -> None:
        self.report: PublishReport | None = None
        self._engine = engine
        self._probe = probe
        self._probe_tokens = probe_tokens
        self._tolerance = TOLERANCE.get(engine.options.dtype, 0.3) if tolerance is None else tolerance
        self._folders = _weights_folders(Path(folder))
        self._last: PublishedWeights | None = None
        self._lock = asyncio.Lock()
        engine.on_restart = self._restore

    async def publish(self, version: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """After it returns, every new token is sampled from `tensors`; requests in flight went on with them."""
        started = time.perf_counter()
        weights = await self.write(version, tensors)
        written = time.perf_counter()
        self._last = weights
        faults: list[str] = []
        self._engine.withhold()
        try:
            for _ in range(ATTEMPTS):
                try:
                    # A server that died meanwhile is restarted, and `_restore` has then installed these very weights.
                    await self._engine.until_ready()
                    await self._install(weights, written - started)
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
            raise
        self._engine.trust()
        for folder in self._folders:
            for old in folder.glob("weights-*.safetensors"):
                if old != weights.path:
                    old.unlink(missing_ok=True)

    async def write(self, version: int, tensors: Mapping[str, torch.Tensor]) -> PublishedWeights:
        """The file, complete or absent, and what to expect of a server that loaded it."""
        dtype = self._engine.options.dtype
        size = sum(tensor.numel() for tensor in tensors.values()) * BYTES.get(dtype, 2)
        path = _with_room(self._folders, size) / f"weights-{version}.safetensors"
        kept = await asyncio.to_thread(_cast, tensors, dtype)
        tokens = self._tokens()
        # Side by side: each takes as long as the others, and leaves the interpreter lock.
        _, (held, computed), expected = await asyncio.gather(
            asyncio.to_thread(_save, path, kept),
            asyncio.to_thread(_fingerprints, kept, version),
            asyncio.to_thread(self._probe, tokens),
        )
        if expected.shape != tokens.shape or not np.isfinite(expected).all():
            raise InfrastructureFault(
                f"the learner's probe gave log-probabilities of shape {expected.shape} for {len(tokens)} tokens, "
                f"{int((~np.isfinite(expected)).sum())} of them not finite; version {version} is not published."
            )
        return PublishedWeights(version, path, held, computed, expected)

    async def verify(self, weights: PublishedWeights) -> float:
        """Mean |difference| of the probe. Raises `InfrastructureFault` where the server computes with anything else."""
        await self._check_tensors(self._engine.api, weights)
        return await self._check_probe(self._engine.api, weights)

    async def close(self) -> None:
        """Removes the files; a restart of the server can then no longer bring the weights back."""
        self._engine.on_restart = None
        self._last = None
        for folder in self._folders:
            await asyncio.to_thread(shutil.rmtree, folder, True)

    async def _check_tensors(self, api: VllmApi, weights: PublishedWeights) -> None:
        shown = await api.call_worker("agentrl_fingerprints", [str(weights.path), weights.version])
        if shown["unmapped"]:
            raise InfrastructureFault(
                f"where vLLM keeps {len(shown['unmapped'])} of the published tensors is not known, so they cannot be "
                f"verified: {', '.join(shown['unmapped'][:5])}. This architecture needs the transformers engine."
            )
        _compare("the server does not hold the published", weights.held, shown["held"])
        _compare("the server does not compute with the published", weights.computed, shown["computed"])

    async def _check_probe(self, api: VllmApi, weights: PublishedWeights) -> float:
        label = await api.version()
        if label != str(weights.version):
            raise InfrastructureFault(f"the server calls its weights version {label}, not {weights.version}.")
        scores = await api.score(self._tokens(), first=True)
        mismatch = float(np.abs(scores - weights.probe_logprobs)[1:].mean())
        if not mismatch <= self._tolerance:
            worst = int(np.abs(scores - weights.probe_logprobs).argmax())
            raise InfrastructureFault(
                f"version {weights.version}: over {len(scores) - 1} probe tokens the server's log-probabilities differ "
                f"by {mismatch:.2e} nats in the mean (allowed: {self._tolerance:g}); worst at {worst}, server "
                f"{scores[worst]:.5f}, learner {weights.probe_logprobs[worst]:.5f}. All tensors have arrived, so the "
                "two sides compute differently: compare dtype, attention and position settings."
            )
        return mismatch

    async def _restore(self) -> None:
        if self._last is not None:
            await self._install(self._last, 0.0)
            self._engine.trust()

    async def _install(self, weights: PublishedWeights, write_seconds: float) -> None:
        async def load(api: VllmApi) -> None:
            answer = await api.call_worker("agentrl_load", [str(weights.path)])
            if answer["missing"]:
                raise InfrastructureFault(
                    f"version {weights.version} lacks {len(answer['missing'])} of the server's parameters: "
                    f"{', '.join(answer['missing'][:5])}."
                )
            await api.call_worker("agentrl_pack")
            # While sampling is held: nothing is sampled from tensors that did not arrive, and no request is in the way.
            await self._check_tensors(api, weights)

        async with self._lock:
            started = time.perf_counter()
            await self._engine.swap(weights.version, load)
            swapped = time.perf_counter()
            try:
                mismatch = await self._check_probe(self._engine.api, weights)
            finally:
                await self._engine.hold_if_paused()
            self.report = PublishReport(
                weights.version,
                weights.path.stat().st_size,
                write_seconds,
                swapped - started,
                time.perf_counter() - swapped,
                mismatch,
            )

    def _tokens(self) -> TokenIds:
        if self._probe_tokens is None:
            length = min(32, self._engine.max_context - 1)
            ids = np.random.default_rng(0).integers(0, self._engine.vocabulary, length)
            self._probe_tokens = ids.astype(np.int32)
        return self._probe_tokens


def _compare(what: str, expected: Mapping[str, str], shown: Mapping[str, str]) -> None:
    wrong = sorted(name for name in expected.keys() | shown.keys() if expected.get(name) != shown.get(name))
    if wrong:
        first = wrong[0]
        raise InfrastructureFault(
            f"{what} {', '.join(wrong[:5])}{' ...' if len(wrong) > 5 else ''} ({len(wrong)} of {len(expected)}; "
            f"checksum of {first}: {shown.get(first)}, published {expected.get(first)})."
        )


def _cast(tensors: Mapping[str, torch.Tensor], dtype: str) -> dict[str, torch.Tensor]:
    """In the engine's dtype, in main memory, without an output head that is the embedding by another name."""
    import torch

    kept: dict[str, torch.Tensor] = {}
    places: set[tuple[int, torch.Size]] = set()
    # The head last: of two names for one tensor the embedding's is the one to keep.
    for name in sorted(tensors, key=lambda name: (name.endswith(HEAD), name)):
        tensor = tensors[name].detach()
        place = (tensor.data_ptr(), tensor.shape)
        if name.endswith(HEAD) and place in places:
            continue
        places.add(place)
        target = getattr(torch, dtype) if tensor.is_floating_point() else tensor.dtype
        kept[name] = tensor.to("cpu", target).contiguous()
    return kept


def _fingerprints(kept: Mapping[str, torch.Tensor], version: int) -> tuple[dict[str, str], dict[str, str]]:
    """Of what a server must hold, and of columns of what it must compute with."""
    from agentrl.engines.vllm_fingerprint import checksum, column_checksum, probe_columns

    held = {name: checksum(tensor) for name, tensor in kept.items()}
    computed = {}
    for name, tensor in kept.items():
        if tensor.ndim == 2 and name.endswith(".weight"):
            columns = column_checksum(tensor[:, probe_columns(version, tensor.shape[1])].T)
            # A head of its own comes last and so replaces the embedding here.
            computed["output head" if name.endswith((HEAD, EMBEDDING)) else name] = columns
    return held, computed


def _save(path: Path, kept: dict[str, torch.Tensor]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    aside = path.with_suffix(".new")
    try:
        save_file(kept, aside)
        aside.replace(path)
    except (OSError, SafetensorError) as error:
        aside.unlink(missing_ok=True)
        raise InfrastructureFault(f"the weights cannot be written to {path}: {error}") from error


def _weights_folders(run: Path) -> tuple[Path, ...]:
    """Emptied folders: shared memory where there is any, named after the run so that a killed run's files are found."""
    folders = [run / "published"]
    if SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK):
        name = hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:16]
        folders.insert(0, SHARED_MEMORY / f"agentrl-{os.getuid()}-{name}")
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return tuple(folders)


def _with_room(folders: tuple[Path, ...], size: int) -> Path:
    """The first folder whose disk holds the file and a little more. In a container shared memory may be small."""
    free = []
    for folder in folders:
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        free.append(shutil.disk_usage(folder).free)
        if free[-1] > 1.1 * size:
            return folder
    rooms = ", ".join(f"{folder}: {room >> 20:,} MiB" for folder, room in zip(folders, free, strict=True))
    raise InfrastructureFault(f"the weights need {size >> 20:,} MiB, and no folder has room for them ({rooms} free).")
