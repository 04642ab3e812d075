"""Log-probabilities and entropies under an output head that is not trained.

Rule: logits exist for a block of the vocabulary at a time. The slope of every log-probability with respect to its
hidden state is summed up with them, so nothing of the size tokens x vocabulary is kept, or made again for the backward
pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_ELEMENTS = 2**21
"Logits in one block: 8 MiB in float32, so that the passes over them find them in a processor's cache."


def frozen_scores(
    states: Tensor, head: torch.nn.Linear, target: Tensor, temperature: float, block_elements: int = BLOCK_ELEMENTS
) -> tuple[Tensor, Tensor]:
    """float32 states [n, width] and target [n] to log-probability and entropy [n], in nats.

    The log-probability has its gradient in `states`; the entropy has none, and the head gets none.
    """
    slopes = torch.is_grad_enabled() and states.requires_grad
    size = max(block_elements // max(len(states), 1), 1)
    found: tuple[Tensor, Tensor] = _Scores.apply(  # type: ignore[no-untyped-call]
        states, head.weight, head.bias, target, temperature, size, slopes
    )
    return found


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        temperature: float,
        size: int,
        slopes: bool,
    ) -> tuple[Tensor, Tensor]:
        rows = len(states)
        peak = states.new_full((rows, 1), torch.finfo(states.dtype).min)
        total, spread, chosen = (states.new_zeros(rows, 1) for _ in range(3))
        pull = torch.zeros_like(states) if slopes else None
        for start in range(0, len(weight), size):
            part = weight[start : start + size]
            logits = torch.nn.functional.linear(states, part, None if bias is None else bias[start : start + size])
            if temperature != 1:
                logits /= temperature
            at = target[:, None] - start
            inside = (at >= 0) & (at < len(part))
            chosen = torch.where(inside, logits.gather(1, at.clamp(0, len(part) - 1)), chosen)
            # Sums over e^(logit - peak), with what was summed up under a lower peak shrunk to the new one.
            higher = torch.maximum(peak, logits.amax(1, keepdim=True))
            fall = peak - higher
            shrink, peak = fall.exp(), higher
            mass = logits.sub_(peak).exp()
            spread = shrink * (spread + fall * total) + logits.mul_(mass).sum(1, keepdim=True)
            total = shrink * total + mass.sum(1, keepdim=True)
            if pull is not None:
                pull.mul_(shrink).addmm_(mass, part)
        if pull is not None:
            ctx.save_for_backward((weight[target] - pull.div_(total)).div_(temperature))
        entropy = (total.log() - spread / total)[:, 0]
        ctx.mark_non_differentiable(entropy)
        return (chosen - peak - total.log())[:, 0], entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None, None, None, None, None]:
        (slope,) = ctx.saved_tensors
        return grad[:, None] * slope, None, None, None, None, None, None
