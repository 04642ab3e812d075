"""A process reward model: how likely an episode succeeds, read at the last token of each step.

A model that cannot read a trajectory raises; it never scores 0 for want of an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from agentrl.errors import ConfigError
from agentrl.rewards.fitted import FittedReward
from agentrl.rewards.step_model import Fitting, NewHead, open_step_model, require_same_tokens
from agentrl.types import Trajectory


class ProcessReward(FittedReward):
    """Scores every step with a classification head on a causal transformer; with `fit`, the method `fit` trains it.

    `path` is the folder of a token- or sequence-classification model with one or two labels (of two, label 1 is the
    good one); without it, the policy's starting weights get a new head. `loss` "bce" makes an output a probability,
    "mse" takes it as it is. `reward` "value" pays a step what was read after it, "gain" how much that rose (the first
    step: all of it), so that a long episode is not paid for its length.

    Targets are Monte Carlo (Math-Shepherd, arXiv 2312.08935, with the rollouts at hand): each step is taught whether
    its trajectory succeeded, so a step that branches share learns their success rate. With `fit` it learns in the run,
    after every update of the policy; `start` is the folder of an earlier `save`.
    """

    def __init__(
        self,
        model_path: Path,
        path: Path | None = None,
        *,
        fit: Fitting | None = None,
        loss: Literal["bce", "mse"] = "bce",
        reward: Literal["value", "gain"] = "value",
        start: Path | None = None,
        device: str = "cpu",
    ) -> None:
        if path is not None:
            require_same_tokens(model_path, path)
        new_head = None if fit is None and start is None else NewHead()
        model = open_step_model(path or model_path, fit, device, new_head=new_head)
        labels = model.head.out_features
        if labels > 2 or (labels == 2 and loss == "mse"):
            raise ConfigError(
                f"the model at {path} has {labels} labels; loss {loss!r} needs one{' or two' * (loss == 'bce')}."
            )
        self._loss = loss
        self._reward = reward
        super().__init__(model, start)

    async def score(self, trajectory: Trajectory) -> Sequence[float]:
        """Raises `InfrastructureFault` where the model fails."""
        values = await super().score(trajectory)
        if self._reward == "value":
            return values
        return [float(gain) for gain in np.diff(values, prepend=0.0)]

    def losses(self, outputs: Tensor, trajectory: Trajectory) -> Tensor:
        values, target = self.forecasts(outputs, trajectory)
        if self._loss == "mse":
            return (values - target).square()
        return functional.binary_cross_entropy_with_logits(_logits(outputs), target, reduction="none")

    def forecasts(self, outputs: Tensor, trajectory: Trajectory) -> tuple[Tensor, Tensor]:
        """Of each step."""
        return self._values(outputs), torch.full((len(outputs),), float(trajectory.success), device=outputs.device)

    def _read(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
        return [self._values(outputs).tolist() for outputs in self.model.read(trajectories)]

    def _values(self, outputs: Tensor) -> Tensor:
        if self._loss == "mse":
            return outputs[:, 0]
        return torch.sigmoid(_logits(outputs))


def _logits(outputs: Tensor) -> Tensor:
    """Of the good label: a softmax over two labels is the sigmoid of their difference."""
    return outputs[:, 1] - outputs[:, 0] if outputs.shape[1] == 2 else outputs[:, 0]
