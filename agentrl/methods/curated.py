"""Methods that choose which trajectories of a group are trained on."""

from __future__ import annotations

from agentrl.credit.curation import DropEqual, MaximumVariance
from agentrl.credit.rules import EpisodeCredit
from agentrl.method import CLIPPED, AggregationName, Clipped, Method, aggregate_by


def dapo(*, aggregate: AggregationName = "token_mean", objective: Clipped = CLIPPED) -> Method:
    """Clip-higher, mean over tokens, and no group of equal returns (DAPO, Yu et al. 2025).

    The collector's keep hook refills what is dropped; the penalty on overlong answers is the reward model "overlong".
    With that penalty returns of equal outcomes differ, and their group stays.
    """
    return Method(
        "dapo",
        EpisodeCredit(),
        aggregate_by(aggregate),
        objective.build,
        curations=(DropEqual(),),
        paper="arXiv:2503.14476",
    )


def d3s(*, size: int = 4, objective: Clipped = CLIPPED) -> Method:
    """GRPO on the `size` members of each group whose returns vary most (D3S); the source leaves the number open.

    Its choice of tokens and its schedule are not part of this preset.
    """
    return Method(
        "d3s",
        EpisodeCredit(),
        aggregate_by("token_mean"),
        objective.build,
        curations=(MaximumVariance(size),),
    )
