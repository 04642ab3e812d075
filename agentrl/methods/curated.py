"""Methods that choose which groups are trained on."""

from __future__ import annotations

from typing import Literal

from agentrl.credit.curation import DropEqual, Varied
from agentrl.credit.rules import EpisodeCredit
from agentrl.method import CLIPPED, AggregationName, Clipped, Method, aggregate_by


def dapo(
    *,
    varied: Literal["return", "success"] = "return",
    aggregate: AggregationName = "token_mean",
    objective: Clipped = CLIPPED,
) -> Method:
    """Clip-higher, token mean, and dynamic sampling: a group of equal outcomes is replaced (DAPO, Yu et al. 2025).

    `varied` says what must differ in a group. The penalty on overlong answers is the reward model "overlong": with it
    returns of equal outcomes differ, so take "success". Where 16 batches of groups were dropped for one, the run stops
    and says so; the source stops at 10.
    """
    keep = Varied(varied)
    return Method(
        "dapo",
        EpisodeCredit(),
        aggregate_by(aggregate),
        objective.build,
        keep=keep,
        # For groups that no collector chose.
        curations=(DropEqual(keep),),
        paper="arXiv:2503.14476",
    )
