"""Methods for samples of older weights or of other kernels: corrections, rejections and objectives that need neither.

Three policies: the sampler mu, the proximal one at the start of the batch, the one being trained. A method whose ratio
is taken against mu holds the correction in it already and multiplies no other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from agentrl.batch import Doubles, StepTable
from agentrl.credit.baselines import Scale
from agentrl.credit.returns import outcomes
from agentrl.credit.rules import CreditRule, EpisodeCredit
from agentrl.losses import aggregation
from agentrl.method import CLIPPED, AggregationName, Clipped, Method, aggregate_by

if TYPE_CHECKING:
    from agentrl.losses.objective import Correction, Objective, TokenWeight

Level = Literal["token", "step", "trajectory"]


@dataclass(frozen=True, slots=True)
class Shifted:
    """A credit rule, `by` added to every advantage."""

    rule: CreditRule
    by: float

    def __call__(self, table: StepTable) -> Doubles:
        return self.rule(table) + self.by


@dataclass(frozen=True, slots=True)
class SoftBaseline:
    """`R - tau log mean exp(R / tau)` over the group: between its mean (tau large) and its maximum (tau small)."""

    tau: float = 1.0

    def __call__(self, table: StepTable) -> Doubles:
        found = outcomes(table)
        best = np.full(table.groups, -np.inf)
        np.maximum.at(best, found.group, found.value)
        # Off the largest first: the exponentials then lie in (0, 1].
        below = found.value - best[found.group]
        total = np.bincount(found.group, weights=np.exp(below / self.tau), minlength=table.groups)
        size = np.bincount(found.group, minlength=table.groups)
        baseline = self.tau * np.log(total[found.group] / size[found.group])
        advantage: Doubles = (below - baseline)[found.of_row]
        return advantage


def decoupled_ppo(
    *,
    high: float = 2.0,
    level: Level = "token",
    weights: Literal["truncated", "normalised"] = "truncated",
    scale: Scale = "group",
    aggregate: AggregationName = "token_mean",
    objective: Clipped = CLIPPED,
) -> Method:
    """PPO around recomputed weights, times the truncated weight of its samples (Hilton et al. 2021; AReaL 2025; TIS).

    weights "normalised" divides those of an update by their mean, after the truncation.
    """

    def build() -> Objective:
        from agentrl.losses import corrections

        correction = corrections.truncated(high=high, level=level)
        if weights == "truncated":
            return _recomputed(objective, correction)
        return _recomputed(objective, None, (corrections.Normalised(correction, level),))

    return Method("decoupled_ppo", EpisodeCredit(scale=scale), aggregate_by(aggregate), build, paper="arXiv:2505.24298")


def icepop(*, low: float = 0.5, high: float = 2.0, scale: Scale = "group", objective: Clipped = CLIPPED) -> Method:
    """PPO around recomputed weights without the tokens on which sampler and learner disagree (IcePop, Ling Team 2025).

    Implementations differ in the bounds; these are common ones.
    """

    def build() -> Objective:
        from agentrl.losses import corrections

        return _recomputed(objective, corrections.masked(low=low, high=high))

    return Method("icepop", EpisodeCredit(scale=scale), aggregation.token_mean, build, paper="arXiv:2510.18855")


def mis(
    *,
    high: float = 3.0,
    level: Level = "trajectory",
    floor: float = 1e-4,
    scale: Scale = "group",
    objective: Clipped = CLIPPED,
) -> Method:
    """Masked importance sampling: whole trajectories with a weight above `high` are dropped, others keep theirs.

    A trajectory with one token of a ratio below `floor` goes too. There is no paper; bounds are common ones. For long
    trajectories a product leaves its bounds at once: take level "step".
    """

    def build() -> Objective:
        from agentrl.losses import corrections

        weight = corrections.masked(low=0.0, high=high, level=level)
        return _recomputed(objective, corrections.product(weight, corrections.veto(low=floor)))

    return Method("mis", EpisodeCredit(scale=scale), aggregation.token_mean, build)


def geo_rejection(
    *,
    low: float = 0.99,
    high: float = 1.01,
    level: Level = "trajectory",
    floor: float = 1e-4,
    scale: Scale = "group",
    objective: Clipped = CLIPPED,
) -> Method:
    """Geometric rejection: trajectories whose mean log ratio leaves `[ln low, ln high]` are dropped, long or short.

    There is no paper; bounds are common ones. What is kept is truncated per token at 2.
    """

    def build() -> Objective:
        from agentrl.losses import corrections

        kept = corrections.band(low=low, high=high, level=level)
        return _recomputed(objective, corrections.product(corrections.truncated(), kept, corrections.veto(low=floor)))

    return Method("geo_rejection", EpisodeCredit(scale=scale), aggregation.token_mean, build)


def m2po(*, limit: float = 0.04, scale: Scale = "group") -> Method:
    """Second-moment trust region (Zheng et al. 2025): an update drops its most moved tokens until the rest is calm.

    In place of a clip. The ratio is taken against the sampler.
    """

    def build() -> Objective:
        from agentrl.losses import surrogates, weights
        from agentrl.losses.objective import Objective, token_ratio

        unclipped = surrogates.clipped(low=1.0, high=float("inf"))
        return Objective(token_ratio, unclipped, weights=(weights.SecondMoment(limit),))

    return Method("m2po", EpisodeCredit(scale=scale), aggregation.token_mean, build, paper="arXiv:2510.01161")


def opsm(*, limit: float = 1e-4, scale: Scale = "group", objective: Clipped = CLIPPED) -> Method:
    """Off-policy sequence masking (DeepSeek-V3.2, 2025): bad trajectories that the policy has left do not train.

    The report leaves the limit open; this is that of a public implementation.
    """

    def build() -> Objective:
        from agentrl.losses import weights

        return replace(objective.build(), weights=(weights.OffPolicySequences(limit),))

    return Method("opsm", EpisodeCredit(scale=scale), aggregation.token_mean, build, paper="arXiv:2512.02556")


def topr(
    *,
    low: float = 0.0,
    high: float = 1.0,
    ratio: Literal["token", "trajectory"] = "trajectory",
    scale: Scale = "none",
) -> Method:
    """Tapered off-policy REINFORCE (Le Roux et al. 2025): bad trajectories count as far as they are still likely.

    ratio "trajectory" is the paper's, "token" that of later implementations.
    """

    def build() -> Objective:
        from agentrl.losses import ratios, surrogates
        from agentrl.losses.objective import Objective, token_ratio

        chosen = token_ratio if ratio == "token" else ratios.sequence_prod
        return Objective(chosen, surrogates.topr(low=low, high=high))

    return Method("topr", EpisodeCredit(scale=scale), aggregation.trajectory_mean, build, paper="arXiv:2503.14286")


def asymre(*, shift: float = -0.1, aggregate: AggregationName = "token_mean") -> Method:
    """Asymmetric REINFORCE (Arnal et al. 2025): no ratio; the baseline is the group's mean plus `shift`.

    Below 0 it leans towards successes, which keeps off-policy learning stable.
    """

    def build() -> Objective:
        from agentrl.losses import surrogates
        from agentrl.losses.objective import Objective, token_ratio

        return Objective(token_ratio, surrogates.reinforce())

    rule = Shifted(EpisodeCredit(scale="none"), -shift)
    return Method("asymre", rule, aggregate_by(aggregate), build, paper="arXiv:2506.20520")


def opmd(
    *, tau: float = 1.0, baseline: Literal["mean", "soft"] = "mean", aggregate: AggregationName = "token_mean"
) -> Method:
    """Online policy mirror descent, simplified (Trinity-RFT 2025): `-A log pi / (1 + tau)`, no ratio.

    baseline "soft" is `tau log mean exp(R / tau)`, the one that mirror descent derives; "mean" its limit.
    """

    def build() -> Objective:
        from agentrl.losses import surrogates
        from agentrl.losses.objective import Objective, token_ratio

        return Objective(token_ratio, surrogates.scaled(surrogates.reinforce(), 1 / (1 + tau)))

    rule: CreditRule = EpisodeCredit(scale="none") if baseline == "mean" else SoftBaseline(tau)
    return Method("opmd", rule, aggregate_by(aggregate), build, paper="arXiv:2505.17826")


def rec(
    *,
    low: float = 0.2,
    high: float = 0.2,
    far_low: float = 0.6,
    far_high: float = 2.0,
    scale: Scale = "none",
) -> Method:
    """Group-relative REINFORCE in a ring of ratios (REC, Yao et al. 2025), without a ratio in the gradient.

    The paper tries several rings; these bounds are one of them or near.
    """

    def build() -> Objective:
        from agentrl.losses import trust_regions
        from agentrl.losses.objective import Objective, token_ratio

        surrogate = trust_regions.ring(low=low, high=high, far_low=far_low, far_high=far_high)
        return Objective(token_ratio, surrogate)

    return Method("rec", EpisodeCredit(scale=scale), aggregation.token_mean, build, paper="arXiv:2509.24203")


def nft(*, floor: float = 1.0) -> Method:
    """Negative-aware fine-tuning (Chen et al. 2025), for rewards of 0 or 1."""

    def build() -> Objective:
        from agentrl.losses import surrogates
        from agentrl.losses.objective import Objective, token_ratio

        return Objective(token_ratio, surrogates.nft(floor=floor))

    return Method("nft", EpisodeCredit(scale="none"), aggregation.token_mean, build, paper="arXiv:2505.18116")


def vcpo(*, high: float = 2.0, level: Level = "trajectory") -> Method:
    """Variance-controlled policy optimisation (Huang et al. 2026): a learning rate times `sqrt(ESS / B)`, and the
    baseline of least variance.

    Around REINFORCE with importance weights cut at `high` per token, which the paper leaves to the user.
    """

    def build() -> Objective:
        from agentrl.losses import credits, gates, surrogates
        from agentrl.losses.objective import Objective, token_ratio

        return Objective(
            token_ratio,
            surrogates.weighted_reinforce(high=high),
            credits=(credits.OffPolicyBaseline(high),),
            gate=gates.EffectiveSampleSize(level),
        )

    return Method("vcpo", EpisodeCredit(scale="none"), aggregation.trajectory_mean, build, paper="arXiv:2602.17616")


def vespo(
    *,
    positive: tuple[float, float] = (2.0, 3.0),
    negative: tuple[float, float] = (3.0, 2.0),
    scale: Scale = "group",
    aggregate: AggregationName = "token_mean",
) -> Method:
    """VESPO (2026): REINFORCE with a soft kernel `w^k e^(lambda (1 - w))` of the whole trajectory's weight w.

    `positive` and `negative` are k and lambda by the sign of the advantage; the numbers are the public code's.
    """

    def build() -> Objective:
        from agentrl.losses import ratios, surrogates
        from agentrl.losses.objective import Objective

        return Objective(ratios.sequence_prod, surrogates.vespo(positive=positive, negative=negative))

    return Method("vespo", EpisodeCredit(scale=scale), aggregate_by(aggregate), build, paper="arXiv:2602.10693")


def _recomputed(given: Clipped, correction: Correction | None, weights: tuple[TokenWeight, ...] = ()) -> Objective:
    built = replace(given, proximal="recompute", correction="none").build()
    return replace(built, correction=correction, weights=weights)
