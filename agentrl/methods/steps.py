"""Methods that give the steps of one trajectory different credit."""

from __future__ import annotations

from typing import Literal

from agentrl.credit.anchors import HistoryCredit, SimilarAnchors
from agentrl.credit.baselines import Scale
from agentrl.credit.rules import AnchorCredit, EpisodeCredit, StepReturnCredit, WeightedSum
from agentrl.credit.turns import StepGAE, TermCredit, TurnCredit
from agentrl.method import CLIPPED, AggregationName, Clipped, CriticSettings, Method, Needs, aggregate_by

CRITIC = CriticSettings()
"The default critic."
DART_CLIP = Clipped(proximal="recompute", correction="truncated")
"The default clip, with weights for the sampler cut at 2."


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
    return Method(
        "gigpo",
        rule,
        aggregate_by(aggregate),
        objective.build,
        needs=Needs(anchors=True),
        paper="arXiv:2505.10978",
    )


def gigpo_similar(
    *,
    threshold: float = 0.95,
    gamma: float = 0.95,
    omega: float = 1.0,
    scale: Scale = "group",
    objective: Clipped = CLIPPED,
) -> Method:
    """GiGPO for environments without state keys: observations that read alike are one state (its similarity mode)."""
    rule = WeightedSum(((1.0, EpisodeCredit(scale=scale)), (omega, AnchorCredit(gamma=gamma, scale=scale))))
    return Method(
        "gigpo_similar",
        rule,
        aggregate_by("token_mean"),
        objective.build,
        shapings=(SimilarAnchors(threshold),),
        paper="arXiv:2505.10978",
    )


def hgpo(
    *,
    history: int = 2,
    gamma: float = 0.95,
    alpha: float = 1.0,
    omega: float = 1.0,
    objective: Clipped = CLIPPED,
) -> Method:
    """GiGPO whose step term compares places of equal history, at depths of 1 to `history` + 1 states (HGPO).

    The episode term is GiGPO's; the source leaves alpha, the weight of deep histories, open.
    """
    rule = WeightedSum(((1.0, EpisodeCredit()), (omega, HistoryCredit(history=history, gamma=gamma, alpha=alpha))))
    return Method("hgpo", rule, aggregate_by("token_mean"), objective.build, needs=Needs(anchors=True))


def dart(*, objective: Clipped = DART_CLIP) -> Method:
    """Outcomes compared over all steps of a task, so that long episodes weigh more, with truncated weights (DART-GUI).

    Its choice of high-entropy steps, its pool of successes and its number of rollouts per task are not part of this
    preset.
    """
    rule = EpisodeCredit(statistics="pooled")
    return Method("dart", rule, aggregate_by("token_mean"), objective.build, paper="arXiv:2509.23866")


def step_return(
    *,
    gamma: float = 0.95,
    scale: Scale = "group",
    aggregate: AggregationName = "token_mean",
    objective: Clipped = CLIPPED,
) -> Method:
    """Discounted return-to-go against the group's steps: the control that GiGPO must beat."""
    rule = StepReturnCredit(gamma=gamma, scale=scale)
    return Method("step_return", rule, aggregate_by(aggregate), objective.build)


def steppo(*, critic: CriticSettings = CRITIC, objective: Clipped = CLIPPED) -> Method:
    """Step-level PPO: GAE over steps with a critic, whitened over steps (StepPO); gamma and lambda are the critic's.

    The source's sequence-level ratio is not part of this preset: the ratio is that of `objective`.
    """
    rule = StepGAE(critic.gamma, critic.trace)
    return Method("steppo", rule, aggregate_by("token_mean"), objective.build, critic=critic, needs=Needs(group=1))


def igpo(*, gamma: float = 1.0, objective: Clipped = CLIPPED) -> Method:
    """Turn rewards normalised over the group, then summed ahead (IGPO); add the reward model of information gain."""
    return Method("igpo", TurnCredit(gamma), aggregate_by("token_mean"), objective.build, paper="arXiv:2510.14967")


def eapo(*, gamma: float = 0.995, objective: Clipped = CLIPPED) -> Method:
    """`gamma^(T - t) R` of each round against all rounds of the task (IterResearch); gamma is our choice.

    Rows are not thrown away to reach a multiple of the ranks, as denominators are global here.
    """
    rule = StepReturnCredit(gamma=gamma)
    return Method("eapo", rule, aggregate_by("token_mean"), objective.build, paper="arXiv:2511.07327")


def normalised_terms(*, weights: dict[str, float], objective: Clipped = CLIPPED) -> Method:
    """Named scores, each normalised in its group and then added up (MO-GRPO); "reward" names the whole reward."""
    rule = TermCredit(tuple(sorted(weights.items())))
    return Method("normalised_terms", rule, aggregate_by("token_mean"), objective.build)
