"""Progress attribution: what each step contributed to the return, so that the contributions sum to it (SPA-RL).

Whether an action could be executed at all is another term (`executable`), never mixed into the contribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from agentrl.rewards.fitted import FittedReward
from agentrl.rewards.returns import environment_return
from agentrl.rewards.step_model import Fitting, NewHead, open_step_model
from agentrl.types import Trajectory


class ProgressReward(FittedReward):
    """SPA-RL's estimator (arXiv 2505.20732): C_t = w . h(last token of step t), trained on (sum_t C_t - R)^2.

    R is the environment's undiscounted return, or 1 for a success and 0 otherwise. The trunk is the policy's starting
    weights, frozen unless `fit` trains "all". Until the first fit every contribution is 0, which says that nothing is
    known, and adds nothing. With `fit` it learns in the run, after every update of the policy; `start` is the folder of
    an earlier `save`.
    """

    def __init__(
        self,
        model_path: Path,
        *,
        fit: Fitting | None = None,
        target: Literal["return", "success"] = "return",
        start: Path | None = None,
        device: str = "cpu",
    ) -> None:
        new_head = None if fit is None and start is None else NewHead(bias=False)
        model = open_step_model(model_path, fit, device, new_head=new_head)
        super().__init__(model, start)
        self._target = target

    def losses(self, outputs: Tensor, trajectory: Trajectory) -> Tensor:
        told, came = self.forecasts(outputs, trajectory)
        return (told - came).square()

    def forecasts(self, outputs: Tensor, trajectory: Trajectory) -> tuple[Tensor, Tensor]:
        """Of the return, one of each trajectory."""
        came = environment_return(trajectory) if self._target == "return" else float(trajectory.success)
        return outputs[:, 0].sum().reshape(1), torch.full((1,), came, device=outputs.device)

    def _read(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
        return [outputs[:, 0].tolist() for outputs in self.model.read(trajectories)]
