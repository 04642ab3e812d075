"""What one update computed, as sums over its columns, and the metrics that they become.

Rule: sums are divided once, by the columns of the whole batch that were computed; never per micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from agentrl.batch import Taught
from agentrl.losses.objective import LossInputs, LossOutput
from agentrl.training.packing import MicroBatch


@dataclass(slots=True)
class Tally:
    size: int
    "Columns of the whole batch."
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
    taught: Taught = field(init=False)
    "Filled as gradients are taken."

    def __post_init__(self) -> None:
        zeros = np.zeros(self.size, np.float32)
        self.taught = Taught(zeros, zeros.copy(), np.full(self.size, np.nan, np.float32))

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

    def teach(self, column: npt.NDArray[np.int64], inputs: LossInputs, coefficient: Tensor) -> None:
        """Keep what the tokens at `column` of the batch were trained with."""
        for kept, now in (
            (self.taught.advantage, inputs.advantage),
            (self.taught.coefficient, coefficient),
            (self.taught.logprobs, inputs.logprobs),
        ):
            kept[column] = now.detach().float().cpu().numpy()

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
