"""The fused LoRA layer against peft's own, in value and gradient."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import peft
import pytest
import torch
from forests import random_batch, tiny_llama

from agentrl.training.logprobs import Reading, tree_model
from agentrl.training.lora import FusedLora
from agentrl.training.settings import LoraSettings
from agentrl.training.tree import build_tree
from agentrl.training.weights import add_adapters


def adapted() -> tuple[Any, Any]:
    """One model with our layers, and the same with peft's; the adapters say something."""
    model = add_adapters(tiny_llama(), LoraSettings(rank=3, alpha=12))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    theirs = copy.deepcopy(model)
    for module in theirs.modules():
        if isinstance(module, FusedLora):
            module.__class__ = peft.tuners.lora.Linear
    return model.eval(), theirs.eval()


def read(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    tree = build_tree(random_batch(3).contexts)
    logprobs = tree_model(model).scores(tree, Reading(1.0)).logprobs
    model.zero_grad()
    logprobs.square().mean().backward()
    return logprobs.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_every_adapted_layer_is_fused() -> None:
    model, _ = adapted()
    layers = [module for module in model.modules() if isinstance(module, peft.tuners.lora.LoraLayer)]
    assert len(layers) == 2 * 7 and all(isinstance(layer, FusedLora) for layer in layers)


def test_values_and_gradients_are_those_of_peft() -> None:
    ours, theirs = adapted()
    (found, slopes), (wanted, their_slopes) = read(ours), read(theirs)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert slopes.keys() == their_slopes.keys() and all("lora_" in name for name in slopes)
    for name, slope in slopes.items():
        torch.testing.assert_close(slope, their_slopes[name], atol=1e-5, rtol=1e-4)


def test_the_derivatives_are_those_of_finite_differences() -> None:
    torch.manual_seed(1)
    base = torch.nn.Linear(5, 4).double()
    base.requires_grad_(False)
    layer = FusedLora(base, "default", peft.LoraConfig(init_lora_weights=False), r=2, lora_alpha=6).double()
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight

    def of_adapters(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(
            layer, {"lora_A.default.weight": a, "lora_B.default.weight": b}, (x.detach(),)
        )

    assert torch.autograd.gradcheck(of_adapters, (down, up))


@pytest.mark.parametrize("way", ["disabled", "merged"])
def test_what_does_not_fit_the_fused_product_goes_pefts_way(way: str) -> None:
    ours, theirs = adapted()
    ids = torch.from_numpy(np.arange(12))[None]
    results = []
    for model in (ours, theirs):
        if way == "merged":
            model.merge_adapter()
        with torch.no_grad():
            if way == "disabled":
                with model.disable_adapter():
                    results.append(model(input_ids=ids).logits)
            else:
                results.append(model(input_ids=ids).logits)
    torch.testing.assert_close(results[0], results[1], atol=0, rtol=0)
