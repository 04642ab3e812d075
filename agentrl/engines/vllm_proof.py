"""What a vLLM server must show before anything is sampled from new weights.

Proof is exact and by number: checksums of every tensor that the worker holds, checksums of columns of what its linear
layers and its output head compute with, and log-probabilities of a fixed probe against the learner's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agentrl.engines.vllm_api import VllmApi
from agentrl.errors import InfrastructureFault
from agentrl.types import JSON, Floats, TokenIds

if TYPE_CHECKING:
    import torch

PROBE_TOKENS = 8
# Largest mean |difference| in nats over the probe. Low-precision arithmetic differs between any two programs; there
# the exact checksums are what tells old weights from new ones.
TOLERANCE = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.3}


@dataclass(frozen=True, slots=True)
class Probe:
    """A prompt and who scores it for the learner."""

    tokens: TokenIds
    logprobs: Callable[[TokenIds], Floats]
    "As `protocols.LearnerSide.probe`."
    tolerance: float
    "Largest mean |engine - learner| log-probability, in nats."


@dataclass(frozen=True, slots=True)
class Expected:
    """What a server that serves a version must show."""

    version: int
    held: Mapping[str, str]
    computed: Mapping[str, str]
    probe_logprobs: Floats


def probe_tokens(vocabulary: int, max_context: int) -> TokenIds:
    ids = np.random.default_rng(0).integers(0, vocabulary, min(PROBE_TOKENS, max_context - 1))
    return ids.astype(np.int32)


def expect(version: int, tensors: Mapping[str, torch.Tensor], probe: Probe) -> Expected:
    """From the tensors as they were published, and from the learner. Raises `InfrastructureFault`."""
    from agentrl.engines.vllm_fingerprint import fingerprints

    held, computed = fingerprints(tensors, version)
    logprobs = probe.logprobs(probe.tokens)
    if logprobs.shape != probe.tokens.shape or not np.isfinite(logprobs).all():
        raise InfrastructureFault(
            f"the learner's probe gave log-probabilities of shape {logprobs.shape} for {len(probe.tokens)} tokens, "
            f"{int((~np.isfinite(logprobs)).sum())} of them not finite; version {version} cannot be verified."
        )
    return Expected(version, held, computed, logprobs)


async def fingerprints_of(api: VllmApi, path: Path, version: int) -> Mapping[str, JSON]:
    """What the worker holds and computes with, by the names in the file. Raises `InfrastructureFault`."""
    return await api.call_worker("agentrl_fingerprints", [str(path), version])


def check_fingerprints(shown: Mapping[str, JSON], expected: Expected) -> None:
    """Raises `InfrastructureFault`."""
    if shown["unmapped"]:
        raise InfrastructureFault(
            f"where vLLM keeps {len(shown['unmapped'])} of the published tensors is not known, so they cannot be "
            f"verified: {', '.join(shown['unmapped'][:5])}. This architecture needs the transformers engine."
        )
    _compare("the server does not hold the published", expected.held, shown["held"])
    _compare("the server does not compute with the published", expected.computed, shown["computed"])


async def probe_scores(api: VllmApi, version: int, probe: Probe) -> Floats:
    """The server's own, ahead of every other request. Raises `InfrastructureFault`."""
    label, scores = await asyncio.gather(api.version(), api.score_first(probe.tokens))
    if label != str(version):
        raise InfrastructureFault(f"the server calls its weights version {label}, not {version}.")
    return scores


def check_probe(scores: Floats, expected: Expected, probe: Probe) -> float:
    """Mean |engine - learner| log-probability, in nats. Raises `InfrastructureFault`."""
    differences = np.abs(scores - expected.probe_logprobs)
    mismatch = float(differences[1:].mean())
    if not mismatch <= probe.tolerance:
        worst = int(differences.argmax())
        raise InfrastructureFault(
            f"version {expected.version}: over {len(scores) - 1} probe tokens the server's log-probabilities differ "
            f"by {mismatch:.2e} nats in the mean (allowed: {probe.tolerance:g}); worst at {worst}, server "
            f"{scores[worst]:.5f}, learner {expected.probe_logprobs[worst]:.5f}. All tensors have arrived, so the "
            "two sides compute differently: compare dtype, attention and position settings."
        )
    return mismatch


def _compare(what: str, expected: Mapping[str, str], shown: Mapping[str, str]) -> None:
    wrong = sorted(name for name in expected.keys() | shown.keys() if expected.get(name) != shown.get(name))
    if wrong:
        first = wrong[0]
        raise InfrastructureFault(
            f"{what} {', '.join(wrong[:5])}{' ...' if len(wrong) > 5 else ''} ({len(wrong)} of {len(expected)}; "
            f"checksum of {first}: {shown.get(first)}, published {expected.get(first)})."
        )
