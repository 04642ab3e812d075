"""The learner on CUDA against the learner on CPU, and FlexAttention against SDPA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forests import random_batch, row_by_row, tiny_llama, tiny_qwen3

from agentrl.losses.objective import LossInputs, LossOutput
from agentrl.training.learner import LearnerSettings, LoraSettings, TorchLearner
from agentrl.training.logprobs import Reading, tree_model
from agentrl.training.tree import build_tree

pytestmark = pytest.mark.gpu

SETTINGS = LearnerSettings(learning_rate=1e-3, gradient_clip=0.0)
BIG = {"groups": 6, "members": 6, "steps": 6, "longest": 20}
PROBE = np.arange(40, dtype=np.int32)


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    """No TF32: parity is measured in real float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def objective(inputs: LossInputs) -> LossOutput:
    return LossOutput(-inputs.advantage * torch.exp(inputs.logprobs - inputs.behavior_logprobs))


def close(found: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found.detach().cpu().float(), wanted.detach().cpu().float(), atol=tolerance, rtol=1e-3)


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen3])
@pytest.mark.parametrize("kernel", ["flex", "blocks"])
def test_three_updates_on_cuda_equal_three_on_cpu(make: Callable[[], Any], kernel: Any) -> None:
    host = TorchLearner(make(), objective, settings=SETTINGS)
    device = TorchLearner(make().cuda(), objective, settings=replace(SETTINGS, kernel=kernel))
    for seed in range(3):
        here, there = host.update(random_batch(seed, **BIG)), device.update(random_batch(seed, **BIG))
        for name in ("loss", "gradient_norm", "entropy", "tree_tokens"):
            assert there.metrics[name] == pytest.approx(here.metrics[name], rel=1e-3, abs=1e-4)
    np.testing.assert_allclose(device.score(PROBE), host.score(PROBE), atol=2e-3)


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen3])
def test_flex_attention_equals_sdpa_in_value_and_gradient(make: Callable[[], Any]) -> None:
    tree = build_tree(random_batch(1, **BIG).contexts)
    results = []
    for kernel in ("flex", "blocks"):
        model = make().cuda()
        found = tree_model(model, kernel=kernel).scores(tree, Reading(0.9, entropy=True, differentiable=True))
        assert found.entropy is not None
        (found.logprobs.mean() + found.entropy.mean()).backward()
        results.append((found.logprobs, found.entropy, {n: p.grad for n, p in model.named_parameters()}))
    (logprobs, entropy, slopes), (other, other_entropy, other_slopes) = results
    close(logprobs, other, 1e-4)
    close(entropy, other_entropy, 1e-4)
    for name in slopes:
        close(slopes[name], other_slopes[name], 1e-4)


def test_cuda_chooses_flex_attention() -> None:
    assert tree_model(tiny_llama().cuda()).kernel == "flex"


@pytest.mark.parametrize("size", [17, 127, 128, 129, 1000])
def test_trees_of_any_size_reuse_the_compiled_kernel(size: int) -> None:
    model = tiny_llama().cuda()
    ids = np.random.default_rng(size).integers(0, 61, min(size, 500)).astype(np.int32)
    flex = TorchLearner(model, objective, settings=replace(SETTINGS, kernel="flex")).score(ids)
    blocks = TorchLearner(model, objective, settings=replace(SETTINGS, kernel="blocks")).score(ids)
    np.testing.assert_allclose(flex, blocks, atol=1e-4)


@pytest.mark.parametrize("kernel", ["flex", "blocks"])
def test_bfloat16_trees_are_as_near_to_float32_as_bfloat16_rows_are(kernel: Any) -> None:
    batch = random_batch(2, **BIG)
    exact = row_by_row(tiny_llama(), batch)[0].detach()
    low = tiny_llama().bfloat16().cuda()
    for parameter in low.parameters():
        parameter.requires_grad_(False)
    found = tree_model(low, kernel=kernel).scores(build_tree(batch.contexts), Reading(1.0))
    rows = row_by_row(tiny_llama().bfloat16(), batch)[0].detach()
    ours, theirs = (found.logprobs.cpu() - exact).abs().mean(), (rows - exact).abs().mean()
    assert float(ours) < 0.03 and float(ours) < 2 * float(theirs) + 1e-3


@pytest.mark.parametrize("compute", ["lora", "autocast"])
def test_bfloat16_updates_learn_on_cuda(compute: str) -> None:
    if compute == "lora":
        settings = replace(SETTINGS, lora=LoraSettings(rank=4))
        learner = TorchLearner(tiny_llama(tied=False).bfloat16().cuda(), objective, settings=settings)
    else:
        learner = TorchLearner(tiny_llama().cuda(), objective, settings=replace(SETTINGS, compute="bfloat16"))
    losses = [learner.update(random_batch(3, **BIG)).metrics["loss"] for _ in range(5)]
    assert losses[-1] < losses[0]


def test_a_checkpoint_from_cuda_continues_on_cuda(tmp_path: Path) -> None:
    one = TorchLearner(tiny_llama().cuda(), objective, settings=SETTINGS)
    one.update(random_batch(0))
    one.save(tmp_path / "c")
    two = TorchLearner(tiny_llama(seed=1).cuda(), objective, settings=SETTINGS)
    two.load(tmp_path / "c")
    for name, tensor in one.named_tensors().items():
        assert torch.equal(tensor, two.named_tensors()[name])
    close(
        torch.tensor(two.update(random_batch(1)).metrics["loss"]),
        torch.tensor(one.update(random_batch(1)).metrics["loss"]),
        1e-4,
    )
