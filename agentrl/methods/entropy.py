"""Methods that keep the policy exploring: by covariance, by entropy, or by protecting what is rare.

Every preset is GRPO's credit with a choice of tokens or a term, decided on the whole update. Where a source leaves a
number open, the docstring says so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from agentrl.credit.baselines import Scale
from agentrl.credit.curation import MaximumVariance
from agentrl.credit.rules import EpisodeCredit
from agentrl.losses import aggregation
from agentrl.method import CLIPPED, Clipped, Method, Needs

if TYPE_CHECKING:
    from agentrl.losses.objective import Objective


def clip_cov(
    *,
    share: float = 2e-4,
    lowest: float = 1.0,
    highest: float = 5.0,
    low: float = 0.2,
    high: float = 0.2,
    scale: Scale = "group",
) -> Method:
    """Clip-Cov (Cui et al. 2025): a random few of the tokens whose advantage and log-probability covary are dropped."""

    def build() -> Objective:
        from agentrl.losses import selection, surrogates
        from agentrl.losses.objective import Objective, token_ratio

        return Objective(
            token_ratio,
            surrogates.clipped(low=low, high=high, dual=3.0),
            weights=(selection.CovarianceClip(share, lowest, highest, low, high),),
        )

    return Method("clip_cov", EpisodeCredit(scale=scale), aggregation.token_mean, build, paper="arXiv:2505.22617")


def kl_cov(*, share: float = 2e-4, coefficient: float = 1.0, scale: Scale = "group") -> Method:
    """KL-Cov (Cui et al. 2025): no clip; the tokens of highest covariance are held by their absolute log ratio."""

    def build() -> Objective:
        from agentrl.losses import regularisers, selection, surrogates
        from agentrl.losses.objective import Objective, Term, token_ratio

        term = Term(coefficient, regularisers.absolute_log_ratio, selection.CovarianceTop(share))
        unclipped = surrogates.clipped(low=1.0, high=float("inf"))
        return Objective(token_ratio, unclipped, regularisers=(term,))

    return Method("kl_cov", EpisodeCredit(scale=scale), aggregation.token_mean, build, paper="arXiv:2505.22617")


def epo(
    *,
    entropy: float = 1e-3,
    smoothing: float = 1.0,
    low: float = 0.8,
    high: float = 1.2,
    scale: Scale = "group",
    objective: Clipped = CLIPPED,
) -> Method:
    """Entropy-regularised policy optimisation (Xu et al. 2025): a bonus, and a pull towards each step's own past.

    `entropy` weighs both, `smoothing` the pull within. The published pull has no gradient; this one has.
    """

    def build() -> Objective:
        from agentrl.losses import regularisers
        from agentrl.losses.objective import Term

        built = objective.build()
        terms = (
            Term(entropy, regularisers.entropy_bonus),
            Term(entropy * smoothing, regularisers.EntropySmoothing(low, high)),
        )
        return replace(built, regularisers=(*built.regularisers, *terms), needs_entropy=True)

    return Method("epo", EpisodeCredit(scale=scale), aggregation.token_mean, build, paper="arXiv:2509.22576")


def steer(*, lowest: float = 0.8, scale: Scale = "group", objective: Clipped = CLIPPED) -> Method:
    """STEER: tokens whose gradient would change the entropy most get as little as `lowest` of their weight."""

    def build() -> Objective:
        from agentrl.losses import weights

        return replace(objective.build(), weights=(weights.Steer(lowest),))

    return Method("steer", EpisodeCredit(scale=scale), aggregation.token_mean, build)


def lp_reg(
    *,
    coefficient: float = 1.0,
    kappa: float = 0.02,
    share: float = 0.01,
    low: float = 1.0,
    high: float = 9.0,
    scale: Scale = "group",
) -> Method:
    """Low-probability regularisation (Huang et al. 2025): rare tokens that may be sparks are not pushed to extinction.

    Of the bad tokens among the `share` least likely ones those above `kappa` times the likeliest are protected. The
    clip is so wide that it only bounds. Numbers are those of the published scripts.
    """

    def build() -> Objective:
        from agentrl.losses import proxies, selection, surrogates
        from agentrl.losses.objective import Objective, Term, token_ratio

        return Objective(
            token_ratio,
            surrogates.clipped(low=low, high=high, dual=10.0),
            regularisers=(Term(coefficient, proxies.towards_proxy, selection.UnlikelyBad(share)),),
            statistic=proxies.kept_mass(kappa=kappa),
        )

    return Method("lp_reg", EpisodeCredit(scale=scale), aggregation.token_mean, build, paper="arXiv:2510.03222")


def high_entropy(*, share: float = 0.2, scale: Scale = "group", objective: Clipped = CLIPPED) -> Method:
    """Only the `share` of tokens with the highest entropy learn (Wang et al. 2025, "Beyond the 80/20 rule")."""

    def build() -> Objective:
        from agentrl.losses import selection

        return replace(objective.build(), weights=(selection.HighEntropy(share),))

    return Method("high_entropy", EpisodeCredit(scale=scale), aggregation.token_mean, build, paper="arXiv:2506.01939")


def d3s(
    *,
    size: int = 4,
    share: float = 0.2,
    relax: int = 100,
    scale: Scale = "group",
    objective: Clipped = CLIPPED,
) -> Method:
    """Dynamic dual-level down-sampling (Wang et al. 2025), of trajectories and of tokens.

    Kept are the `size` members of each group whose returns vary most, and of their tokens the `share` of largest
    `|A| H`, which grows to all over `relax` updates. The three numbers are choices of ours.
    """

    def build() -> Objective:
        from agentrl.losses import selection

        return replace(objective.build(), weights=(selection.AdvantageEntropy(share, relax),))

    return Method(
        "d3s",
        EpisodeCredit(scale=scale),
        aggregation.token_mean,
        build,
        curations=(MaximumVariance(size),),
        needs=Needs(group=max(size, 2)),
        paper="arXiv:2509.22115",
    )


def entropy_steps(
    *, share: float = 0.8, cap: float = 2.0, scale: Scale = "group", objective: Clipped = CLIPPED
) -> Method:
    """The `share` of each task's steps with the highest entropy, with truncated importance weights (DART-GUI, 2025).

    This is DART's choice of steps and its correction; its replay and its numbers of rollouts are parts of a run. `cap`
    is a common bound, not the paper's.
    """

    def build() -> Objective:
        from agentrl.losses import corrections, selection

        built = replace(objective, proximal="recompute", correction="none").build()
        weights = (selection.EntropySteps(share),)
        return replace(built, correction=corrections.truncated(high=cap), weights=weights)

    rule = EpisodeCredit(scale=scale)
    return Method("entropy_steps", rule, aggregation.step_mean, build, paper="arXiv:2509.23866")


def gtpo(
    *,
    amplify: float = 2.0,
    limit: float = 0.693,
    price: float = 0.1,
    scale: Scale = "group",
    objective: Clipped = CLIPPED,
) -> Method:
    """GTPO (Simoni et al. 2025): tokens that good and bad trajectories share at their edges are not pushed down.

    They get no weight in bad trajectories and `amplify` in good ones. Trajectories with a mean entropy above `limit`,
    ln 2 nats, are dropped, the others pay `price` a nat. Numbers are the public code's, for trained models: where
    every trajectory is above the limit nothing is learned, and the report says so.
    """

    def build() -> Objective:
        from agentrl.losses import conflicts

        return replace(
            objective.build(),
            credits=(conflicts.EntropyCharge(price),),
            weights=(conflicts.ConflictTokens(amplify), conflicts.CalmTrajectories(limit)),
        )

    return Method("gtpo", EpisodeCredit(scale=scale), aggregation.trajectory_mean, build, paper="arXiv:2508.03772")
