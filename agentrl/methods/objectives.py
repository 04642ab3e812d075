"""Methods that differ in the ratio and in where trust in it ends: GSPO, CISPO and their kin.

Every preset is GRPO's credit (whole trajectories of one task) with one objective; its numbers are those of its source,
or the docstring says that the source leaves them open. Ratios are taken against the sampler.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from agentrl.credit.baselines import Scale
from agentrl.credit.rules import EpisodeCredit
from agentrl.losses import aggregation
from agentrl.method import CLIPPED, AggregationName, Clipped, Method, aggregate_by

if TYPE_CHECKING:
    from agentrl.losses.objective import Objective, Term


def gspo(*, low: float = 3e-4, high: float = 4e-4, scale: Scale = "group") -> Method:
    """Group sequence policy optimisation (Zheng et al. 2025): one clipped ratio per trajectory, its geometric mean."""

    def build() -> Objective:
        from agentrl.losses import ratios, surrogates
        from agentrl.losses.objective import Objective

        return Objective(ratios.sequence_geo, surrogates.clipped(low=low, high=high))

    return Method("gspo", EpisodeCredit(scale=scale), aggregation.trajectory_mean, build, paper="arXiv:2507.18071")


def gspo_step(*, low: float = 3e-4, high: float = 4e-4, scale: Scale = "group") -> Method:
    """GSPO with a ratio per step, as StepPO uses it: turns of one episode are clipped each by itself."""

    def build() -> Objective:
        from agentrl.losses import ratios, surrogates
        from agentrl.losses.objective import Objective

        return Objective(ratios.step_geo, surrogates.clipped(low=low, high=high))

    return Method("gspo_step", EpisodeCredit(scale=scale), aggregation.step_mean, build, paper="arXiv:2507.18071")


def cispo(*, low: float = 1.0, high: float = 0.28, scale: Scale = "group") -> Method:
    """Clipped importance weights in place of clipped tokens (MiniMax-M1, 2025). Its bound is open; 0.28 is DAPO's."""

    def build() -> Objective:
        from agentrl.losses import surrogates
        from agentrl.losses.objective import Objective, token_ratio

        return Objective(token_ratio, surrogates.cispo(low=low, high=high))

    return Method("cispo", EpisodeCredit(scale=scale), aggregation.token_mean, build, paper="arXiv:2506.13585")


def sapo(*, positive: float = 1.0, negative: float = 1.05, scale: Scale = "group") -> Method:
    """Soft adaptive policy optimisation (Gao et al. 2025): a sigmoid gate in place of a clip."""

    def build() -> Objective:
        from agentrl.losses import surrogates
        from agentrl.losses.objective import Objective, token_ratio

        return Objective(token_ratio, surrogates.sapo(positive=positive, negative=negative))

    return Method("sapo", EpisodeCredit(scale=scale), aggregation.trajectory_mean, build, paper="arXiv:2511.20347")


def gmpo(*, low: float = 0.4, high: float = 0.4, scale: Scale = "group") -> Method:
    """Geometric-mean policy optimisation (Zhao et al. 2025); bounds in nats of the token's log ratio."""

    def build() -> Objective:
        from agentrl.losses import surrogates
        from agentrl.losses.objective import Objective, token_ratio

        return Objective(token_ratio, surrogates.gmpo(low=low, high=high))

    return Method("gmpo", EpisodeCredit(scale=scale), aggregation.trajectory_mean, build, paper="arXiv:2507.20673")


def dppo(*, low: float = 0.2, high: float = 0.2, penalty: float = 1e-3, scale: Scale = "group") -> Method:
    """Divergence PPO (Qi et al. 2026), binary total variation, with `penalty` times the squared log ratio.

    Bounds and penalty are those of a public implementation.
    """

    def build() -> Objective:
        from agentrl.losses import regularisers, trust_regions
        from agentrl.losses.objective import Objective, Term, token_ratio

        # K2 is half the square.
        term = Term(2 * penalty, regularisers.kl(estimator="k2", anchor="proximal"))
        surrogate = trust_regions.probability_bounded(low=low, high=high)
        return Objective(token_ratio, surrogate, regularisers=(term,))

    return Method("dppo", EpisodeCredit(scale=scale), aggregation.token_mean, build, paper="arXiv:2602.04879")


def ctpo(
    *, low: float = 0.025, high: float = 0.05, power: float = 0.5, dual: float = 0.05, scale: Scale = "group"
) -> Method:
    """Cumulative-token policy optimisation: the ratio of the whole prefix, in bounds that widen with its length."""

    def build() -> Objective:
        from agentrl.losses import ratios, trust_regions
        from agentrl.losses.objective import Objective

        surrogate = trust_regions.position_clipped(low=low, high=high, power=power, dual=dual)
        return Objective(ratios.cumulative, surrogate)

    return Method("ctpo", EpisodeCredit(scale=scale), aggregation.token_mean, build)


def minpro(*, low: float = 0.2, high: float = 0.28, scale: Scale = "group") -> Method:
    """The token's ratio times the smallest one before it (MinPRO): a prefix weight that does not explode.

    The source is known by its abstract only; the clip around it is a choice of ours.
    """

    def build() -> Objective:
        from agentrl.losses import ratios, surrogates
        from agentrl.losses.objective import Objective

        return Objective(ratios.prefix_min, surrogates.clipped(low=low, high=high))

    return Method("minpro", EpisodeCredit(scale=scale), aggregation.token_mean, build)


def bapo(
    *,
    low: float = 0.6,
    high: float = 1.2,
    low_limit: float = 0.9,
    high_limit: float = 3.0,
    step: float = 0.05,
    scale: Scale = "group",
) -> Method:
    """Balanced policy optimisation with adaptive clipping (Xi et al. 2025); bounds are ratios."""

    def build() -> Objective:
        from agentrl.losses import trust_regions
        from agentrl.losses.objective import Objective, token_ratio

        surrogate = trust_regions.AdaptiveClip(low, high, low_limit, high_limit, step)
        return Objective(token_ratio, surrogate)

    return Method("bapo", EpisodeCredit(scale=scale), aggregation.token_mean, build, paper="arXiv:2510.18927")


def grpo_kl(
    *,
    coefficient: float = 1e-3,
    estimator: Literal["k1", "k2", "k3"] = "k3",
    anchor: Literal["reference", "proximal"] = "reference",
    scale: Scale = "group",
    aggregate: AggregationName = "trajectory_mean",
    objective: Clipped = CLIPPED,
) -> Method:
    """GRPO as published, with its KL term (Shao et al. 2024, eq. 3 and 4), for any estimator and anchor.

    K2 to the proximal policy is the proximal term of mirror descent (MDPO).
    """

    def build() -> Objective:
        from agentrl.losses import regularisers
        from agentrl.losses.objective import Term

        term = Term(coefficient, regularisers.kl(estimator=estimator, anchor=anchor))
        return _penalised(objective, term, reference=anchor == "reference")

    return Method("grpo_kl", EpisodeCredit(scale=scale), aggregate_by(aggregate), build, paper="arXiv:2402.03300")


def grpo_unbiased_kl(
    *, coefficient: float = 1e-3, scale: Scale = "group", aggregate: AggregationName = "token_mean"
) -> Method:
    """GRPO with K3 times the ratio (DeepSeek-V3.2, 2025): unbiased also on stale samples. The coefficient is open."""

    def build() -> Objective:
        from agentrl.losses import regularisers
        from agentrl.losses.objective import Term

        term = Term(coefficient, regularisers.by_ratio(regularisers.kl()))
        return _penalised(CLIPPED, term, reference=True)

    return Method(
        "grpo_unbiased_kl", EpisodeCredit(scale=scale), aggregate_by(aggregate), build, paper="arXiv:2512.02556"
    )


def r2vpo(*, limit: float = 0.01, rate: float = 1.0, multiplier: float = 0.1, scale: Scale = "group") -> Method:
    """Ratio-variance regularised policy optimisation: a soft bound on the variance of the ratio, by dual ascent.

    The three numbers are choices of ours.
    """

    def build() -> Objective:
        from agentrl.losses import regularisers, surrogates
        from agentrl.losses.objective import Objective, Term, token_ratio

        term = Term(1.0, regularisers.BoundedVariance(limit, rate, multiplier))
        unclipped = surrogates.clipped(low=1.0, high=float("inf"))
        return Objective(token_ratio, unclipped, regularisers=(term,))

    return Method("r2vpo", EpisodeCredit(scale=scale), aggregation.token_mean, build, paper="arXiv:2605.26784")


def _penalised(given: Clipped, term: Term, *, reference: bool) -> Objective:
    built = given.build()
    terms = (*built.regularisers, term)
    return replace(built, regularisers=terms, needs_reference=built.needs_reference or reference)
