"""Methods that value a trajectory by more than its return: by its task's past, its likelihood, its tool calls."""

from __future__ import annotations

from agentrl.credit.rules import EpisodeCredit
from agentrl.credit.shaping import FirstCalls, PositionBonus, Unlikeliness
from agentrl.credit.tracked import TrackedCredit
from agentrl.estimates import WinRates
from agentrl.method import CLIPPED, AggregationName, Clipped, Method, Needs, aggregate_by


def spo(*, decay: float = 0.875, aggregate: AggregationName = "token_mean", objective: Clipped = CLIPPED) -> Method:
    """Single-stream policy optimisation (Xu and Ding 2025): the baseline is the task's own past, so no group is needed.

    A Beta estimate per task, whose past counts `decay` after each return: the constant form of the public code. The
    paper lets it fall with the policy's distance from the one that last saw the task, within 0.875 and 0.96. A task
    that was never seen counts as won half of the time. The sampler "priority" draws the tasks that it learns most from.
    """
    return Method(
        "spo",
        TrackedCredit(WinRates(decay=decay)),
        aggregate_by(aggregate),
        objective.build,
        needs=Needs(group=1),
        paper="arXiv:2509.13232",
    )


def unlikeliness(
    *, beta: float = 0.25, aggregate: AggregationName = "token_mean", objective: Clipped = CLIPPED
) -> Method:
    """GRPO on rewards that favour rare successes over likely ones (He et al. 2025); made for several epochs on a batch.

    0.25 is the published script's. Likelihoods are the sampler's.
    """
    return Method(
        "unlikeliness",
        EpisodeCredit(),
        aggregate_by(aggregate),
        objective.build,
        shapings=(Unlikeliness(beta),),
        paper="arXiv:2506.02355",
    )


def aspo(*, strength: float = 1.0, bound: float = 0.5, objective: Clipped = CLIPPED) -> Method:
    """GRPO whose successes gain by calling a tool early, in the advantage and never across 0 (ASPO, Lin and Xu 2025).

    The source is known by its abstract only: both numbers, and a place counted in sampled tokens before the step with
    the first call, are choices of ours.
    """
    return Method(
        "aspo",
        PositionBonus(EpisodeCredit(), strength, bound),
        aggregate_by("token_mean"),
        objective.build,
        shapings=(FirstCalls(),),
        paper="arXiv:2508.19201",
    )
