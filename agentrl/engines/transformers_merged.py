"""Linear layers with an adapter, added up before sampling: one product a layer instead of three.

Rule: the sum is the engine's own and is made again with every version; the weights it is made of stay the learner's and
are only read.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class MergedLinear(torch.nn.Module):
    """Stands for `layer` (peft, one plain adapter) in the engine's view of a model."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        # Its parameters stay the view's: writes to them are seen, and sharing is proved by them.
        self.layer = layer
        self._adapter: str = layer.active_adapters[0]
        self._sum = torch.empty_like(layer.base_layer.weight, requires_grad=False)

    @torch.no_grad()
    def refresh(self) -> None:
        torch.add(self.layer.base_layer.weight, self.layer.get_delta_weight(self._adapter), out=self._sum)

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, self._sum, self.layer.base_layer.bias)


def merge(view: torch.nn.Module) -> list[MergedLinear]:
    """Put sums where adapters are, for a model in float32 on a CPU, whose memory has room for them.

    In half precision the sum would round what the learner keeps apart.
    """
    found = []
    for parent in list(view.modules()):
        for name, layer in list(parent.named_children()):
            if _fits(layer):
                merged = MergedLinear(layer)
                setattr(parent, name, merged)
                found.append(merged)
    return found


def _fits(layer: Any) -> bool:
    if not hasattr(layer, "get_delta_weight") or type(getattr(layer, "base_layer", None)) is not torch.nn.Linear:
        return False
    if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
        return False
    name, weight = layer.active_adapters[0], layer.base_layer.weight
    plain = name in layer.lora_A and name not in layer.lora_variant and not layer.lora_bias[name]
    return plain and weight.device.type == "cpu" and weight.dtype == torch.float32
