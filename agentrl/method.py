"""A method: named parts of one pipeline, from groups to a training batch and an objective.

GRPO, GiGPO and their kin differ only in which parts they name; the loop and the learner know no method's name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from agentrl.batch import StepTable, TrainingBatch, build_batch, with_credit
from agentrl.credit.baselines import Scale
from agentrl.credit.rules import AnchorCredit, CreditRule, EpisodeCredit, StepReturnCredit, WeightedSum
from agentrl.errors import ConfigError
from agentrl.losses import aggregation
from agentrl.losses.aggregation import Aggregation
from agentrl.types import Floats, Group

if TYPE_CHECKING:
    from agentrl.losses.objective import Objective

AggregationName = Literal["token_mean", "trajectory_mean", "step_mean", "trajectory_sum"]
Proximal = Literal["behavior", "current", "recompute"]
CorrectionName = Literal["none", "truncated", "masked"]
TokenWeight = Callable[[StepTable, TrainingBatch], Floats]


@dataclass(frozen=True, slots=True)
class Method:
    """One preset of the pipeline: credit (S3, S4), token weights (S6), objective (S7 to S9), aggregation (S10)."""

    name: str
    credit: CreditRule
    aggregation: Aggregation
    objective: Callable[[], Objective]
    "Called once by the learner, so that credit can be computed without torch."
    token_weights: tuple[TokenWeight, ...] = ()
    paper: str = ""

    def batch(self, groups: Sequence[Group]) -> TrainingBatch:
        """Columns with advantages, weights and global denominators."""
        batch = build_batch(groups)
        weight = np.ones(len(batch.columns), np.float32)
        for token_weight in self.token_weights:
            weight *= token_weight(batch.table, batch)
        scale = self.aggregation(batch.table, batch.columns)
        return with_credit(batch, self.credit(batch.table), weight, scale)


@dataclass(frozen=True, slots=True)
class Clipped:
    """The clipped objective's numbers, shared by the presets below."""

    low: float = 0.2
    high: float = 0.28
    dual: float | None = 10.0
    proximal: Proximal = "behavior"
    correction: CorrectionName = "none"
    correction_low: float = 0.5
    correction_high: float = 2.0
    entropy: float = 0.0

    def build(self) -> Objective:
        from agentrl.losses import corrections, objective, regularisers, surrogates

        correction: objective.Correction | None = None
        if self.correction == "truncated":
            correction = corrections.truncated(high=self.correction_high)
        elif self.correction == "masked":
            correction = corrections.masked(low=self.correction_low, high=self.correction_high)
        if self.proximal == "behavior" and correction is not None:
            raise ConfigError(
                f"method.objective has correction {self.correction!r} and proximal 'behavior': the ratio already holds "
                "that weight. Use proximal = 'recompute' or 'current', or correction = 'none'."
            )
        return objective.Objective(
            ratio=objective.token_ratio,
            surrogate=surrogates.clipped(low=self.low, high=self.high, dual=self.dual),
            correction=correction,
            regularisers=((self.entropy, regularisers.entropy_bonus),) if self.entropy else (),
            proximal=self.proximal,
            needs_entropy=self.entropy != 0.0,
        )


CLIPPED = Clipped()
"The default numbers: clip-higher, a loose dual clip, the sampler as proximal policy."


def grpo(
    *,
    scale: Scale = "group",
    gamma: float = 1.0,
    aggregate: AggregationName = "token_mean",
    objective: Clipped = CLIPPED,
) -> Method:
    """Group-relative policy optimisation (Shao et al. 2024); gamma below 1 discounts the episode return."""
    rule = EpisodeCredit(scale=scale, gamma=gamma)
    return Method("grpo", rule, _aggregation(aggregate), objective.build, paper="arXiv:2402.03300")


def rloo(*, aggregate: AggregationName = "token_mean", objective: Clipped = CLIPPED) -> Method:
    """REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024)."""
    rule = EpisodeCredit(scale="none", baseline="leave_one_out")
    return Method("rloo", rule, _aggregation(aggregate), objective.build, paper="arXiv:2402.14740")


def gigpo(
    *,
    gamma: float = 0.95,
    omega: float = 1.0,
    scale: Scale = "group",
    statistics: Literal["trajectory", "pooled"] = "trajectory",
    aggregate: AggregationName = "token_mean",
    objective: Clipped = CLIPPED,
) -> Method:
    """Group-in-group policy optimisation (Feng et al. 2025): `A = A_episode + omega A_anchor`.

    scale "none" is the paper's mean normalisation, "group" its mean-and-deviation normalisation.
    """
    episode = EpisodeCredit(scale=scale, statistics=statistics)
    rule = WeightedSum(((1.0, episode), (omega, AnchorCredit(gamma=gamma, scale=scale))))
    return Method("gigpo", rule, _aggregation(aggregate), objective.build, paper="arXiv:2505.10978")


def step_return(
    *,
    gamma: float = 0.95,
    scale: Scale = "group",
    aggregate: AggregationName = "token_mean",
    objective: Clipped = CLIPPED,
) -> Method:
    """Discounted return-to-go against the group's steps: the control that GiGPO must beat."""
    rule = StepReturnCredit(gamma=gamma, scale=scale)
    return Method("step_return", rule, _aggregation(aggregate), objective.build)


def _aggregation(name: AggregationName) -> Aggregation:
    return {
        "token_mean": aggregation.token_mean,
        "trajectory_mean": aggregation.trajectory_mean,
        "step_mean": aggregation.step_mean,
        "trajectory_sum": aggregation.trajectory_sum,
    }[name]
