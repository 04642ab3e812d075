"""The LoRA layer of peft, with a product that makes no copy of its output.

Rule: it computes what peft's own layer computes, which stays in use wherever the fused product does not fit.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor
from torch.autograd.function import once_differentiable


class FusedLora(Linear):  # type: ignore[misc]
    """`x W' + b + scale (x A') B'`, whose second half is added in place by the matrix product that makes it.

    peft's layer writes the wide half three times (product, scale, sum), which on a CPU is memory traffic.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        name = self._fused_adapter(x)
        if name is None or args or kwargs:
            found: Tensor = super().forward(x, *args, **kwargs)
            return found
        down, up, base = self.lora_A[name].weight, self.lora_B[name].weight, self.base_layer
        fused: Tensor = _Product.apply(x, base.weight, base.bias, down, up, self.scaling[name])  # type: ignore[no-untyped-call]
        return fused

    def _fused_adapter(self, x: Tensor) -> str | None:
        """The one adapter in use, where it is plain: everything in one type, nothing merged, no dropout in effect."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        name: str = self.active_adapters[0]
        if name not in self.lora_A or name in self.lora_variant or self.lora_bias[name] or self.fan_in_fan_out:
            return None
        weight = self.base_layer.weight
        plain = type(self.base_layer) is torch.nn.Linear and not weight.requires_grad
        still = not self.training or isinstance(self.lora_dropout[name], torch.nn.Identity)
        same = x.dtype == weight.dtype == self.lora_A[name].weight.dtype
        return name if plain and still and same and not torch.is_autocast_enabled(x.device.type) else None


class _Product(torch.autograd.Function):
    """x [..., in], weight [out, in], bias [out] or None, down [rank, in], up [out, rank] to [..., out].

    No gradient for weight and bias: they are frozen.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        inner = rows @ down.t()
        out = torch.nn.functional.linear(rows, weight, bias).addmm_(inner, up.t(), alpha=scale)
        ctx.save_for_backward(rows, inner, weight, down, up)
        ctx.scale, ctx.shape = scale, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        rows, inner, weight, down, up = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        narrow = (grad @ up).mul_(ctx.scale)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = (grad @ weight).addmm_(narrow, down).view(ctx.shape)
        return to_x, None, None, narrow.t() @ rows, (grad.t() @ inner).mul_(ctx.scale), None
