"""Methods that learn from a teacher on the policy's own samples.

The teacher is a model of the same tokenizer; it scores every sampled token once per batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentrl.credit.rules import EpisodeCredit
from agentrl.losses import aggregation
from agentrl.method import Method, Needs

if TYPE_CHECKING:
    from agentrl.losses.objective import Objective


def opd(*, scale: float = 1.0, reward: float = 0.0, bound: float = 10.0, high: float = 2.0) -> Method:
    """On-policy distillation: `log pi_T - log pi` of each sampled token is its advantage, plus `reward` times GRPO's.

    scale above 1 extrapolates beyond the teacher (ExOPD, Yang et al. 2026) and needs a reference. `bound`, nats, cuts
    the advantage and `high` the importance weight; sources leave both open.
    """

    def build() -> Objective:
        from agentrl.losses import credits, surrogates
        from agentrl.losses.objective import Objective, token_ratio

        return Objective(
            token_ratio,
            surrogates.weighted_reinforce(high=high),
            credits=(credits.Distillation(scale, reward, bound),),
            needs_teacher=True,
            needs_reference=scale != 1.0,
        )

    # Without a reward every trajectory can learn by itself.
    needs = Needs(group=2 if reward else 1)
    return Method("opd", EpisodeCredit(), aggregation.token_mean, build, needs=needs, paper="arXiv:2602.12125")
