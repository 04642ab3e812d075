"""Sampling for a whole batch at once, with noise that belongs to the request.

The noise of a token is a hash of its request's seed and its position, never of a shared generator: a request samples
the same tokens alone, in any batch, and after a pause.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Unsigned = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """One token per row, on the host."""

    tokens: npt.NDArray[np.int64]
    logprobs: npt.NDArray[np.float64]
    "Nats, of the tempered distribution (of the plain one where greedy); NaN where the logits were not finite."
    top_ids: npt.NDArray[np.int64]
    "[rows, k], likeliest first."
    top_logprobs: npt.NDArray[np.float64]


def uniforms(seeds: Unsigned, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each pair of seed and position (splitmix64 of a mixed key, its upper 40 bits).

    Forty bits, so that the product with a total near 1 never rounds up to that total.
    """
    hashed = _mix(_mix(seeds) + positions.astype(np.uint64) * _GOLDEN)
    return (hashed >> np.uint64(24)).astype(np.float64) * 2.0**-40


def sample(
    logits: torch.Tensor, temperatures: npt.NDArray[np.float64], noise: npt.NDArray[np.float64], top: int = 0
) -> Sampled:
    """One token per row of `logits` [rows, vocabulary]; temperature 0 takes the likeliest.

    The inverse of the cumulative distribution at `noise` [rows], in float64: a token of probability 0 is never
    drawn, and a float32 sum over a large vocabulary would move the boundaries by more than a rare token's mass.
    """
    logits = logits.float()
    greedy = temperatures == 0.0
    if not np.all(temperatures == 1.0):
        divisor = torch.from_numpy(np.where(greedy, 1.0, temperatures)).to(logits)
        logits = logits / divisor[:, None]
    logprobs = torch.log_softmax(logits, dim=-1)
    if greedy.all():
        tokens = logits.argmax(-1)
    else:
        mass = logprobs.double().exp_().cumsum_(-1)
        point = torch.from_numpy(noise).to(mass)[:, None] * mass[:, -1:]
        tokens = torch.searchsorted(mass, point, right=True)[:, 0].clamp_(max=logits.shape[-1] - 1)
        if greedy.any():
            tokens = torch.where(torch.from_numpy(greedy).to(logits.device), logits.argmax(-1), tokens)
    chosen = logprobs.gather(1, tokens[:, None])
    likeliest, ids = logprobs.topk(min(top, logits.shape[-1]), dim=-1)
    # One transfer: ids below 2**53 survive a float64.
    host = torch.cat([tokens[:, None].double(), chosen.double(), ids.double(), likeliest.double()], dim=1)
    columns = host.cpu().numpy()
    count = ids.shape[1]
    return Sampled(
        columns[:, 0].astype(np.int64),
        columns[:, 1],
        columns[:, 2 : 2 + count].astype(np.int64),
        columns[:, 2 + count :],
    )


def _mix(state: Unsigned) -> Unsigned:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    state = state + _GOLDEN
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))
