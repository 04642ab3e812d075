"""Token trees against one row at a time: values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from forests import VOCABULARY, ancestry, random_batch, row_by_row, tiny_llama, tiny_qwen3
from transformers import Qwen2Config, Qwen2ForCausalLM

from agentrl.errors import ConfigError
from agentrl.training import attention
from agentrl.training.head import frozen_scores
from agentrl.training.logprobs import Reading, score, tree_model
from agentrl.training.strands import cut
from agentrl.training.tree import build_tree


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen3])
@pytest.mark.parametrize("seed", [0, 1])
def test_trees_equal_rows_in_value_and_gradient(make: Callable[[], Any], seed: int) -> None:
    model = make()
    batch = random_batch(seed, groups=3, members=5, steps=6, longest=14)
    tree = build_tree(batch.contexts)
    # Paths from the root and strands below a branch, or one of the two would not be tested.
    assert {block.allowed is None for block in cut(tree)} == {True, False}
    found = tree_model(model).scores(tree, Reading(0.8, entropy=True, differentiable=True))
    logprobs, entropy = row_by_row(model, batch, 0.8)
    assert found.entropy is not None
    torch.testing.assert_close(found.logprobs, logprobs, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.entropy, entropy, atol=1e-5, rtol=0)
    weight = torch.from_numpy(batch.advantage) / len(batch.columns)
    ours = gradients(model, (weight * (found.logprobs + 0.1 * found.entropy)).sum())
    theirs = gradients(model, (weight * (logprobs + 0.1 * entropy)).sum())
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=1e-4)


def test_a_chunked_head_equals_the_whole_head() -> None:
    model = tiny_llama()
    tree = build_tree(random_batch(5).contexts)
    whole = tree_model(model)
    chunked = replace(whole, head_elements=7 * VOCABULARY)
    results = []
    for part in (whole, chunked):
        found = part.scores(tree, Reading(1.3, entropy=True, differentiable=True))
        assert found.entropy is not None
        results.append((found, gradients(model, (found.logprobs.square() + found.entropy).sum())))
    (one, slopes), (other, chunked_slopes) = results
    torch.testing.assert_close(one.logprobs, other.logprobs, atol=1e-6, rtol=0)
    torch.testing.assert_close(one.entropy, other.entropy, atol=1e-6, rtol=0)
    for name in slopes:
        torch.testing.assert_close(slopes[name], chunked_slopes[name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("block", [1, 7 * 40, 10**6])
@pytest.mark.parametrize("bias", [False, True])
def test_a_frozen_head_in_blocks_equals_its_softmax(block: int, bias: bool) -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(12, 83, bias=bias).requires_grad_(False)
    states = (6 * torch.randn(40, 12)).requires_grad_()
    target, weight = torch.randint(0, 83, (40,)), torch.randn(40)
    found, entropy = frozen_scores(states, head, target, 1.3, block)
    (slope,) = torch.autograd.grad((weight * found).sum(), states)
    plain = torch.log_softmax(head(states).double() / 1.3, -1)
    wanted = plain.gather(1, target[:, None])[:, 0]
    (expected,) = torch.autograd.grad((weight * wanted).sum(), states)
    torch.testing.assert_close(found, wanted.float(), atol=2e-5, rtol=0)
    torch.testing.assert_close(entropy, -(plain.exp() * plain).sum(-1).float(), atol=2e-5, rtol=0)
    torch.testing.assert_close(slope, expected, atol=2e-5, rtol=0)
    assert not entropy.requires_grad


def test_a_frozen_head_gives_what_a_trained_one_gives() -> None:
    tree = build_tree(random_batch(5).contexts)
    results = []
    for trained in (True, False):
        model = tiny_llama(tied=False)
        model.lm_head.requires_grad_(trained)
        found = tree_model(model).scores(tree, Reading(0.7, entropy=True))
        model.zero_grad()
        found.logprobs.square().mean().backward()
        results.append((found.logprobs.detach(), found.entropy, model.model.layers[0].mlp.up_proj.weight.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_reported_entropy_carries_no_gradient() -> None:
    found = tree_model(tiny_llama()).scores(build_tree(random_batch(6).contexts), Reading(1.0, entropy=True))
    assert found.entropy is not None and not found.entropy.requires_grad


@pytest.mark.parametrize("size", [5, 127, 128, 129, 300])
def test_any_size_of_tree_is_read_whole(size: int) -> None:
    model = tiny_llama()
    ids = np.random.default_rng(size).integers(0, VOCABULARY, size).astype(np.int32)
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(ids.astype(np.int64))[None]).logits[0]
    wanted = torch.log_softmax(logits, -1)[:-1].gather(1, torch.from_numpy(ids[1:].astype(np.int64))[:, None])[:, 0]
    found = score(tree_model(model), ids)
    assert found[0] == 0
    np.testing.assert_allclose(found[1:], wanted.numpy(), atol=1e-5)


def test_an_installed_model_still_generates_as_before() -> None:
    plain, installed = tiny_llama(), tiny_llama()
    tree_model(installed)
    prompt = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10]])
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    assert plain.generate(prompt, **options).tolist() == installed.generate(prompt, **options).tolist()


def test_a_flex_mask_lets_tokens_see_their_ancestors_alone() -> None:
    tree = build_tree(random_batch(7, groups=4, members=5, steps=6, longest=14).contexts)
    end = np.concatenate([tree.subtree_end, np.arange(len(tree) + 1, len(tree) + 1 + -len(tree) % 128)])
    flex = attention.flex_mask(torch.from_numpy(end))
    positions = torch.arange(len(end))
    dense = flex.mask_mod(torch.tensor(0), torch.tensor(0), positions[:, None], positions[None, :])
    assert (dense[: len(tree), : len(tree)].numpy() == ancestry(tree)).all()
    assert (dense[len(tree) :].sum(1) == 1).all(), "padding sees itself"
    assert (dense[:, len(tree) :].sum(0) == 1).all(), "nobody sees padding"


def test_a_model_with_sliding_windows_is_refused_by_name() -> None:
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        use_sliding_window=True,
        sliding_window=8,
        max_window_layers=1,
    )
    with pytest.raises(ConfigError, match="sliding_attention"):
        tree_model(Qwen2ForCausalLM(config))


def test_a_model_that_changes_its_logits_after_the_head_is_refused() -> None:
    from transformers import GraniteConfig, GraniteForCausalLM

    torch.manual_seed(0)
    config = GraniteConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        logits_scaling=8.0,
        initializer_range=0.2,
    )
    with pytest.raises(ConfigError, match="reads a token tree differently"):
        tree_model(GraniteForCausalLM(config).eval())
