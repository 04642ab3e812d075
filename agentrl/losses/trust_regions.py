"""Surrogates whose bounds are not two fixed ratios: by position, by probability, by region, or by the update's balance.

Rule: what a bound depends on beside the token itself is decided on the whole update or on a whole trajectory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from agentrl.batch import Doubles, UpdateColumns
from agentrl.losses.objective import LossInputs, LossOutput, Surrogate, bounded_exp
from agentrl.losses.segments import place
from agentrl.losses.surrogates import pessimistic


def position_clipped(
    *, low: float = 0.025, high: float = 0.05, power: float = 0.5, dual: float | None = 0.05
) -> Surrogate:
    """PPO's clip of log ratios to `[-low t^power, high t^power]`, t = 1, 2, ... in the trajectory (CTPO).

    A product of t ratios wanders as sqrt(t), and so do its bounds. `dual` bounds the loss of a bad token at the ratio
    `exp(dual t^power)`. The defaults are those of the published script.
    """

    def loss(log_ratio: Tensor, inputs: LossInputs) -> LossOutput:
        width = (place(inputs.trajectory) + 1).to(log_ratio.dtype) ** power
        bounded = torch.exp(torch.clamp(log_ratio, -low * width, high * width))
        limit = None if dual is None else torch.exp(dual * width)
        return pessimistic(bounded_exp(log_ratio), bounded, inputs.advantage, limit)

    return loss


def probability_bounded(*, low: float = 0.2, high: float = 0.2) -> Surrogate:
    """`-A rho`, without the tokens whose probability has already moved far enough (DPPO).

    Dropped are A > 0 with `pi - mu > high` and A < 0 with `pi - mu < -low`, mu the proximal policy: a rare token may
    change its ratio many times over before its probability, and so the policy, has moved.
    """

    def loss(log_ratio: Tensor, inputs: LossInputs) -> LossOutput:
        moved = (inputs.logprobs.exp() - inputs.proximal_logprobs.exp()).detach()
        far = ((inputs.advantage > 0) & (moved > high)) | ((inputs.advantage < 0) & (moved < -low))
        value = -inputs.advantage * bounded_exp(log_ratio)
        return LossOutput(torch.where(far, 0.0, value), {"clip_fraction": far.sum()})

    return loss


def ring(*, low: float = 0.2, high: float = 0.2, far_low: float = 0.2, far_high: float = 0.2) -> Surrogate:
    """REINFORCE within a region of ratios, without a ratio in the gradient (REC, Yao et al. 2025).

    A token counts in [1-low, 1+high]; where A > 0 also below 1-far_low, where A < 0 also above 1+far_high: there the
    gradient leads back. Far bounds equal to the near ones are the paper's one-sided clip, far_low 1 and far_high
    infinite its two-sided one, in between its ring. The ring's widths are a choice of the user.
    """

    def loss(log_ratio: Tensor, inputs: LossInputs) -> LossOutput:
        ratio = bounded_exp(log_ratio.detach())
        near = (ratio >= 1.0 - low) & (ratio <= 1.0 + high)
        leads_back = torch.where(inputs.advantage > 0, ratio <= 1.0 - far_low, ratio >= 1.0 + far_high)
        keep = near | leads_back
        value = torch.where(keep, -inputs.advantage * inputs.logprobs, 0.0)
        return LossOutput(value, {"clip_fraction": (~keep).sum(), "ratio_mean": ratio.sum()})

    return loss


@dataclass(slots=True)
class AdaptiveClip:
    """PPO's clip with bounds that let good tokens weigh as much as bad ones (BAPO, Xi et al. 2025, algorithm 1).

    For every update the lower bound is raised from `low` to at most `low_limit`, then the upper one from `high` to at
    most `high_limit`, until `sum min(rho, upper) A+` is `target` times `sum max(rho, lower) |A-|`. Bounds are ratios.
    A token beyond its bound counts at the bound and has no gradient. Paper and code differ in which bound moves
    first and in the limits; the code's order is kept. The steps are settings without a stated default.
    """

    low: float = 0.6
    high: float = 1.2
    low_limit: float = 0.9
    high_limit: float = 3.0
    step: float = 0.05
    target: float = 1.0
    dual: float | None = 3.0
    bounds: tuple[float, float] | None = field(default=None, init=False)
    "Of the update at hand."

    def observe(self, update: UpdateColumns) -> None:
        ratio = np.exp(np.clip(update.logprobs - update.proximal_logprobs, -20.0, 20.0)).astype(np.float64)
        advantage = (update.advantage * update.weight).astype(np.float64)
        lower, upper = self.low, self.high
        while lower < self.low_limit and not self._balanced(ratio, advantage, lower, upper):
            lower = min(lower + self.step, self.low_limit)
        while upper < self.high_limit and not self._balanced(ratio, advantage, lower, upper):
            upper = min(upper + self.step, self.high_limit)
        self.bounds = (lower, upper)

    def __call__(self, log_ratio: Tensor, inputs: LossInputs) -> LossOutput:
        lower, upper = self.bounds or (self.low, self.high)
        ratio = bounded_exp(log_ratio)
        return pessimistic(ratio, ratio.clamp(lower, upper), inputs.advantage, self.dual)

    def _balanced(self, ratio: Doubles, advantage: Doubles, lower: float, upper: float) -> bool:
        good = np.sum(np.minimum(ratio, upper) * np.maximum(advantage, 0.0))
        bad = np.sum(np.maximum(ratio, lower) * np.maximum(-advantage, 0.0))
        return bool(good >= self.target * bad)
