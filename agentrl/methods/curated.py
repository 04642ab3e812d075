"""Methods that choose which trajectories of a group are trained on."""

from __future__ import annotations

from agentrl.credit.curation import MaximumVariance
from agentrl.credit.rules import EpisodeCredit
from agentrl.method import CLIPPED, Clipped, Method, aggregate_by


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
