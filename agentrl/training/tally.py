"""What one update computed, as sums over its columns, and the metrics that they become.

Rule: sums are divided once, by the columns of the whole batch that were computed; never per micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from agentrl.losses.objective import LossInputs, LossOutput
from agentrl.training.packing import MicroBatch


@dataclass(slots=True)
class Tally:
    columns: int = 0
    tree_tokens: int = 0
    row_tokens: int = 0
    micro_batches: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    updates: list[tuple[float, float, bool]] = field(default_factory=list)
    "Loss, gradient norm and whether it was clipped, of every minibatch with finite ones."
    compared: int = 0
    gap: float = 0.0
    k3: float = 0.0
    largest: float = 0.0

    def add(self, micro: MicroBatch, output: LossOutput, entropy: Tensor | None) -> None:
        self.columns += len(micro.tree.column)
        self.tree_tokens += len(micro.tree)
        self.row_tokens += micro.tree.row_tokens
        self.micro_batches += 1
        sums = dict(output.metrics)
        if entropy is not None:
            sums["entropy"] = entropy.sum()
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())

    def compare(self, inputs: LossInputs, fresh: Tensor) -> None:
        """Sampler against learner, over tokens that these very weights sampled: any gap is numerics, or a bug."""
        gap = (inputs.logprobs.detach() - inputs.behavior_logprobs)[fresh]
        if gap.numel():
            self.compared += gap.numel()
            self.gap += float(gap.abs().sum())
            self.k3 += float((torch.exp(gap) - 1 - gap).sum())
            self.largest = max(self.largest, float(gap.abs().max()))

    def metrics(self) -> dict[str, float]:
        found = {
            "tokens": float(self.columns),
            "tree_tokens": float(self.tree_tokens),
            "row_tokens": float(self.row_tokens),
            "sharing": self.row_tokens / max(self.tree_tokens, 1),
            "micro_batches": float(self.micro_batches),
            **{name: value / max(self.columns, 1) for name, value in self.sums.items()},
        }
        if self.updates:
            means = np.mean(self.updates, axis=0)
            found |= dict(zip(("loss", "gradient_norm", "gradient_clipped"), map(float, means), strict=True))
        if self.compared:
            found["mismatch"] = self.gap / self.compared
            found["mismatch_k3"] = self.k3 / self.compared
            found["mismatch_max"] = self.largest
        return found
