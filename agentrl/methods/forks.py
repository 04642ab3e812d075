"""Methods for groups that fork: ARPO, R3L, Fission-GRPO and branches against their fork; each names what it needs.

The strategy decides where episodes leave one another, the method what the steps that they share are worth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from agentrl.credit.baselines import Scale
from agentrl.credit.forks import OneGroupAPlace, OwnTokens, PositivesAmplified, UnsharedTokens
from agentrl.credit.rules import CreditRule, EpisodeCredit
from agentrl.credit.turns import BranchCredit, HardAttribution
from agentrl.method import CLIPPED, AggregationName, Clipped, Method, Needs, aggregate_by

if TYPE_CHECKING:
    from agentrl.losses.objective import Objective

FORKS = Needs(forks=True)


def arpo(
    *,
    attribution: Literal["soft", "hard"] = "soft",
    scale: Scale = "group",
    aggregate: AggregationName = "token_mean",
    objective: Clipped = CLIPPED,
) -> Method:
    """GRPO on groups that branch (ARPO, Dong et al. 2025); made for the strategy entropy_branching.

    soft: a shared step is trained in every branch with that branch's advantage. hard: with the mean over its branches.
    """
    rule: CreditRule = EpisodeCredit(scale=scale)
    if attribution == "hard":
        rule = HardAttribution(rule)
    return Method("arpo", rule, aggregate_by(aggregate), objective.build, needs=FORKS, paper="arXiv:2507.19849")


def branch(*, objective: Clipped = CLIPPED) -> Method:
    """Branches against the mean of the fork that they left; for strategies that branch."""
    return Method("branch", BranchCredit(), aggregate_by("token_mean"), objective.build, needs=FORKS)


def r3l(*, tau: float = 1.0, amplify: float = 3.0, aggregate: AggregationName = "token_mean") -> Method:
    """Reflect, then retry, reinforce (R3L): for the strategy retry_from_step.

    Steps that a retry shares with the first try are not trained in either, advantages above 0 count `amplify` times,
    and the loss is mirror descent's `-A log pi / (1 + tau)`, without a ratio: retries were sampled with guidance.
    """

    def build() -> Objective:
        from agentrl.losses import surrogates
        from agentrl.losses.objective import Objective, token_ratio

        return Objective(token_ratio, surrogates.scaled(surrogates.reinforce(), 1 / (1 + tau)))

    rule = PositivesAmplified(EpisodeCredit(scale="none"), amplify)
    return Method("r3l", rule, aggregate_by(aggregate), build, token_weights=(UnsharedTokens(),), needs=FORKS)


def fission(*, scale: Scale = "group", objective: Clipped = CLIPPED) -> Method:
    """GRPO whose recoveries from one error are a group of their own (Fission-GRPO).

    For the strategies fission, whose errors are pooled across batches, and recovery, which stays within one group.
    What a recovery begins with is its prompt: it is trained only in the episode that it comes from.
    """
    return Method(
        "fission",
        EpisodeCredit(scale=scale),
        aggregate_by("token_mean"),
        objective.build,
        shapings=(OneGroupAPlace(),),
        token_weights=(OwnTokens(),),
        needs=FORKS,
        paper="arXiv:2601.15625",
    )
