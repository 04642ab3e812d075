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

BLOCK = 512
"Tokens that are summed up before one of them is looked for."


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

    Otherwise the inverse of the cumulative distribution at `noise` [rows]: a token of probability 0 is never drawn.
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
        tokens = _drawn(logprobs.exp(), torch.from_numpy(noise)[:, None])
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


def _drawn(mass: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Where `noise` [rows, 1] lies in the cumulative sum of `mass` [rows, vocabulary]: first the block, then the token.

    Sums over blocks and the sum inside of the chosen one are float64, and the place inside is a share of its block. So
    each token keeps its probability to a relative 1e-6; one float32 sum over the vocabulary would lose rare tokens.
    """
    blocks = torch.nn.functional.pad(mass, (0, -mass.shape[1] % BLOCK)).reshape(len(mass), -1, BLOCK)
    ends = blocks.sum(-1).double().cumsum_(-1)
    point = noise.to(ends) * ends[:, -1:]
    block = torch.searchsorted(ends, point, right=True).clamp_(max=ends.shape[1] - 1)
    begin = torch.where(block > 0, ends.gather(1, (block - 1).clamp_(min=0)), 0.0)
    share = ((point - begin) / (ends.gather(1, block) - begin)).clamp_(max=1.0 - 2.0**-40)
    inside = blocks[torch.arange(len(mass), device=mass.device), block[:, 0]].double().cumsum_(-1)
    place = torch.searchsorted(inside, share * inside[:, -1:], right=True)
    return (block * BLOCK + place)[:, 0].clamp_(max=mass.shape[1] - 1)


def _mix(state: Unsigned) -> Unsigned:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    state = state + _GOLDEN
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))
