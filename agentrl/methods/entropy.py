"""Methods that keep the policy exploring: by covariance, by entropy, or by protecting what is rare.

Every preset is GRPO's credit with a choice of tokens or a term, decided on the whole update. Where a source leaves a
number open, the docstring says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentrl.credit.baselines import Scale
from agentrl.credit.curation import MaximumVariance
from agentrl.credit.rules import EpisodeCredit
from agentrl.losses import aggregation
from agentrl.method import CLIPPED, Clipped, Method

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

    def objective() -> Objective:
        from agentrl.losses import objective, selection, surrogates

        return objective.Objective(
            objective.token_ratio,
            surrogates.clipped(low=low, high=high, dual=3.0),
            weights=(selection.CovarianceClip(share, lowest, highest, low, high),),
        )

    return Method("clip_cov", EpisodeCredit(scale=scale), aggregation.token_mean, objective, paper="arXiv:2505.22617")


def kl_cov(*, share: float = 2e-4, coefficient: float = 1.0, scale: Scale = "group") -> Method:
    """KL-Cov (Cui et al. 2025): no clip; the tokens of highest covariance are held by their absolute log ratio."""

    def objective() -> Objective:
        from agentrl.losses import objective, regularisers, selection, surrogates

        term = objective.Term(coefficient, regularisers.absolute_log_ratio, selection.CovarianceTop(share))
        unclipped = surrogates.clipped(low=1.0, high=float("inf"))
        return objective.Objective(objective.token_ratio, unclipped, regularisers=(term,))

    return Method("kl_cov", EpisodeCredit(scale=scale), aggregation.token_mean, objective, paper="arXiv:2505.22617")


def epo(
    *,
    entropy: float = 1e-3,
    smoothing: float = 1.0,
    low: float = 0.8,
    high: float = 1.2,
    scale: Scale = "group",
    clip: Clipped = CLIPPED,
) -> Method:
    """Entropy-regularised policy optimisation (Xu et al. 2025): a bonus, and a pull towards each step's own past.

    `entropy` weighs both, `smoothing` the pull within. The published pull has no gradient; this one has.
    """

    def objective() -> Objective:
        from agentrl.losses import objective, regularisers, surrogates

        return objective.Objective(
            objective.token_ratio,
            surrogates.clipped(low=clip.low, high=clip.high, dual=clip.dual),
            regularisers=(
                objective.Term(entropy, regularisers.entropy_bonus),
                objective.Term(entropy * smoothing, regularisers.EntropySmoothing(low, high)),
            ),
            needs_entropy=True,
        )

    return Method("epo", EpisodeCredit(scale=scale), aggregation.token_mean, objective, paper="arXiv:2509.22576")


def steer(*, lowest: float = 0.8, scale: Scale = "group") -> Method:
    """STEER: tokens whose gradient would change the entropy most get as little as `lowest` of their weight."""

    def objective() -> Objective:
        from agentrl.losses import objective, surrogates, weights

        return objective.Objective(
            objective.token_ratio,
            surrogates.clipped(low=0.2, high=0.28, dual=10.0),
            weights=(weights.Steer(lowest),),
        )

    return Method("steer", EpisodeCredit(scale=scale), aggregation.token_mean, objective)


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

    def objective() -> Objective:
        from agentrl.losses import objective, proxies, selection, surrogates

        return objective.Objective(
            objective.token_ratio,
            surrogates.clipped(low=low, high=high, dual=10.0),
            regularisers=(objective.Term(coefficient, proxies.towards_proxy, selection.UnlikelyBad(share)),),
            statistic=proxies.kept_mass(kappa=kappa),
        )

    return Method("lp_reg", EpisodeCredit(scale=scale), aggregation.token_mean, objective, paper="arXiv:2510.03222")


def high_entropy(*, share: float = 0.2, scale: Scale = "group", clip: Clipped = CLIPPED) -> Method:
    """Only the `share` of tokens with the highest entropy learn (Wang et al. 2025, "Beyond the 80/20 rule")."""

    def objective() -> Objective:
        from agentrl.losses import objective, selection, surrogates

        return objective.Objective(
            objective.token_ratio,
            surrogates.clipped(low=clip.low, high=clip.high, dual=clip.dual),
            weights=(selection.HighEntropy(share),),
        )

    return Method(
        "high_entropy", EpisodeCredit(scale=scale), aggregation.token_mean, objective, paper="arXiv:2506.01939"
    )


def d3s(
    *,
    size: int = 4,
    share: float = 0.2,
    relax: int = 100,
    scale: Scale = "group",
    clip: Clipped = CLIPPED,
) -> Method:
    """Dynamic dual-level down-sampling (Wang et al. 2025): the `size` members of each group whose returns vary most, and
    of their tokens the `share` of largest `|A| H`, which grows to all over `relax` updates.

    The three numbers are choices of ours.
    """

    def objective() -> Objective:
        from agentrl.losses import objective, selection, surrogates

        return objective.Objective(
            objective.token_ratio,
            surrogates.clipped(low=clip.low, high=clip.high, dual=clip.dual),
            weights=(selection.AdvantageEntropy(share, relax),),
        )

    return Method(
        "d3s",
        EpisodeCredit(scale=scale),
        aggregation.token_mean,
        objective,
        curations=(MaximumVariance(size),),
        paper="arXiv:2509.22115",
    )
