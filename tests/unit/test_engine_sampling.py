"""Sampling noise that belongs to the request, and the distribution that it draws from."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.engines.transformers_sampling import BLOCK, sample, uniforms


def test_noise_is_uniform_and_independent_between_neighbours() -> None:
    seeds = np.repeat(np.arange(300, dtype=np.uint64), 300)
    positions = np.tile(np.arange(300), 300)
    noise = uniforms(seeds, positions).reshape(300, 300)
    assert noise.min() >= 0.0 and noise.max() < 1.0
    counts = np.histogram(noise, bins=20, range=(0, 1))[0]
    assert ((counts - 4500) ** 2 / 4500).sum() < 45.0, "chi-squared of 19 degrees at p = 0.0007"
    for one, other in ((noise[:, 1:], noise[:, :-1]), (noise[1:], noise[:-1]), (noise, noise.T)):
        unequal = one != other
        assert abs(np.corrcoef(one[unequal], other[unequal])[0, 1]) < 0.02


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**31), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_noise_depends_on_its_own_seed_and_position_only(seed: int, position: int, place: int) -> None:
    seeds = np.arange(6, dtype=np.uint64)
    seeds[place] = seed
    positions = np.full(6, 17)
    positions[place] = position
    alone = uniforms(np.array([seed], np.uint64), np.array([position]))
    assert uniforms(seeds, positions)[place] == alone[0]


def test_frequencies_are_the_tempered_probabilities() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -torch.inf, 1.5])
    count = 40_000
    noise = uniforms(np.full(count, 5, np.uint64), np.arange(count))
    drawn = sample(logits.expand(count, 5), np.full(count, 2.0), noise)
    expected = torch.softmax(logits / 2.0, -1).numpy()
    observed = np.bincount(drawn.tokens, minlength=5) / count
    np.testing.assert_allclose(observed, expected, atol=0.01)
    assert observed[3] == 0.0, "a token of probability 0 is never drawn"
    np.testing.assert_allclose(drawn.logprobs, np.log(expected[drawn.tokens]), atol=1e-6)


def test_the_ends_of_the_noise_draw_tokens_that_can_be_drawn() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).expand(2, 4)
    drawn = sample(logits, np.ones(2), np.array([0.0, 1.0 - 2.0**-40]))
    assert drawn.tokens.tolist() == [1, 2]


def test_a_large_vocabulary_is_drawn_from_as_its_cumulative_sum_says() -> None:
    """Against one float64 sum over the vocabulary, over several blocks and a part of one."""
    torch.manual_seed(0)
    count, vocabulary = 400, 3 * BLOCK + 77
    logits = 4.0 * torch.randn(count, vocabulary)
    logits[:, BLOCK : 2 * BLOCK] = -torch.inf
    noise = uniforms(np.arange(count, dtype=np.uint64), np.zeros(count, np.int64))
    noise[:2] = 0.0, 1.0 - 2.0**-40
    drawn = sample(logits, np.ones(count), noise).tokens
    ends = torch.log_softmax(logits.double(), -1).exp().cumsum(-1).numpy()
    row = np.arange(count)
    # The noise lies in the drawn token's interval, but for the float32 of the log-probabilities.
    assert (noise < ends[row, drawn] + 1e-6).all()
    assert (noise >= np.where(drawn > 0, ends[row, drawn - 1], 0.0) - 1e-6).all()
    assert not ((drawn >= BLOCK) & (drawn < 2 * BLOCK)).any()


def test_rare_tokens_behind_a_likely_one_are_told_apart() -> None:
    """512 tokens of 1e-9 each behind one of nearly 1: a float32 sum up to 1 moves in jumps of 60 of them."""
    logits = torch.full((1, 2 * BLOCK), float(np.log(1e-9)))
    logits[0, :BLOCK] = -torch.inf
    logits[0, 0] = 0.0
    noise = np.linspace(1.0 - 4e-7, 1.0 - 2.0**-40, 1000)
    drawn = sample(logits.expand(1000, -1), np.ones(1000), noise).tokens
    assert (np.diff(drawn) >= 0).all() and drawn[-1] == 2 * BLOCK - 1
    assert len(np.unique(drawn)) > 300


def test_rows_of_one_batch_have_their_own_temperature() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0]]).expand(3, 3)
    drawn = sample(logits, np.array([0.0, 1.0, 4.0]), np.array([0.999, 0.999, 0.999]), top=2)
    assert drawn.tokens.tolist() == [1, 2, 2]
    plain, hot = torch.log_softmax(logits[0], -1), torch.log_softmax(logits[0] / 4.0, -1)
    np.testing.assert_allclose(drawn.logprobs, [plain[1], plain[2], hot[2]], atol=1e-6)
    assert drawn.top_ids.tolist() == [[1, 2]] * 3
    np.testing.assert_allclose(drawn.top_logprobs[2], [hot[1], hot[2]], atol=1e-6)


def test_logits_that_are_not_finite_are_seen() -> None:
    logits = torch.tensor([[0.0, torch.nan], [0.0, 1.0], [torch.inf, 0.0]])
    assert np.isfinite(sample(logits, np.ones(3), np.full(3, 0.5)).logprobs).tolist() == [False, True, False]
