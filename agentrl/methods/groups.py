"""Methods that compare whole trajectories of one task: GRPO and its kin.

Every preset is a choice of baseline, scale, denominators and objective; the numbers are those of the paper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentrl.credit.baselines import Scale, Singleton, Whitening
from agentrl.credit.outcome import (
    BetaNormalisedCredit,
    LengthWeightedCredit,
    RelativeCredit,
    SignalScaledCredit,
    TokenReturns,
    Whitened,
)
from agentrl.credit.rules import CreditRule, EpisodeCredit
from agentrl.credit.turns import ReturnToGo
from agentrl.losses.aggregation import constant
from agentrl.method import CLIPPED, AggregationName, Clipped, Method, Needs, aggregate_by

if TYPE_CHECKING:
    from agentrl.losses.objective import Objective

LOOP_CLIP = Clipped(low=0.2, high=0.2, dual=None)
"PPO's own clip."


def grpo(
    *,
    scale: Scale = "group",
    gamma: float = 1.0,
    aggregate: AggregationName = "token_mean",
    objective: Clipped = CLIPPED,
) -> Method:
    """Group-relative policy optimisation (Shao et al. 2024); gamma below 1 discounts the episode return."""
    rule = EpisodeCredit(scale=scale, gamma=gamma)
    return Method("grpo", rule, aggregate_by(aggregate), objective.build, paper="arXiv:2402.03300")


def dr_grpo(*, length: int = 1024, objective: Clipped = CLIPPED) -> Method:
    """GRPO done right (Liu et al. 2025): no deviation, and a constant denominator of `length` tokens a trajectory.

    `length` is the longest that a trajectory may be, the same for the whole run; the source leaves it to the user.
    """
    return Method("dr_grpo", EpisodeCredit(scale="none"), constant(length), objective.build, paper="arXiv:2503.20783")


def rloo(*, aggregate: AggregationName = "token_mean", objective: Clipped = CLIPPED) -> Method:
    """REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024)."""
    rule = EpisodeCredit(scale="none", baseline="leave_one_out")
    return Method("rloo", rule, aggregate_by(aggregate), objective.build, paper="arXiv:2402.14740")


def loop(*, aggregate: AggregationName = "token_mean", objective: Clipped = LOOP_CLIP) -> Method:
    """PPO on a leave-one-out baseline, no deviation, no critic, no KL (LOOP); made for several epochs on a batch.

    The number of epochs is the run's, not the method's.
    """
    rule = EpisodeCredit(scale="none", baseline="leave_one_out")
    return Method("loop", rule, aggregate_by(aggregate), objective.build, paper="arXiv:2502.01600")


def lite_ppo(*, objective: Clipped = CLIPPED) -> Method:
    """Mean of the group, deviation of the batch, token mean (Lite-PPO, Liu et al. 2025)."""
    return _mean_over_tokens("lite_ppo", EpisodeCredit(scale="batch"), objective, "arXiv:2508.08221")


def reinforce_plus_plus(*, gamma: float = 1.0, whitening: Whitening = "whiten", objective: Clipped = CLIPPED) -> Method:
    """Discounted return-to-go of each sampled token, whitened over the batch's tokens (REINFORCE++, Hu 2025).

    Its own KL is in the reward; here it is a term of the objective.
    """
    return Method(
        "reinforce_plus_plus",
        ReturnToGo(),
        aggregate_by("token_mean"),
        objective.build,
        token_credits=(TokenReturns(gamma, whitening),),
        needs=Needs(group=1),
        paper="arXiv:2501.03262",
    )


def reinforce_plus_plus_baseline(*, whitening: Whitening = "whiten", objective: Clipped = CLIPPED) -> Method:
    """REINFORCE++ with a group baseline (Hu 2025); "whiten" gives credit to groups of equal returns, "scale" none."""
    rule = Whitened(EpisodeCredit(scale="none"), whitening)
    return _mean_over_tokens("reinforce_plus_plus_baseline", rule, objective, "arXiv:2501.03262")


def opo(*, singleton: Singleton = "zero", objective: Clipped = CLIPPED) -> Method:
    """The optimal baseline of on-policy training: the mean weighted by length (Hao et al. 2025).

    `singleton` is the credit of a group of one: none, or "raw", its return, as the public code has it.
    """
    return _mean_over_tokens("opo", LengthWeightedCredit(singleton), objective, "arXiv:2505.23585")


def maxrl(*, objective: Clipped = CLIPPED) -> Method:
    """Differences relative to the group's mean, so that rare successes weigh more (MaxRL)."""
    return _mean_over_tokens("maxrl", RelativeCredit(), objective, "")


def gpg() -> Method:
    """The plain policy gradient on differences scaled up for the groups that told nothing (GPG, Chu et al. 2025)."""

    def build() -> Objective:
        from agentrl.losses import surrogates
        from agentrl.losses.objective import Objective, token_ratio

        return Objective(token_ratio, surrogates.reinforce())

    return Method("gpg", SignalScaledCredit(), aggregate_by("token_mean"), build, paper="arXiv:2504.02546")


def bnpo(*, objective: Clipped = CLIPPED) -> Method:
    """Beta normalisation of success rates (Xiao et al. 2025); returns lie in [0, 1]."""
    return _mean_over_tokens("bnpo", BetaNormalisedCredit(), objective, "arXiv:2506.02864")


def _mean_over_tokens(name: str, rule: CreditRule, objective: Clipped, paper: str) -> Method:
    return Method(name, rule, aggregate_by("token_mean"), objective.build, paper=paper)
