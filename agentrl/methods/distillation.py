"""Methods that learn from a teacher on the policy's own samples.

The teacher is a model of the same tokenizer, or the policy itself told more than it knew; it scores every sampled token
once per batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from agentrl.credit.rules import EpisodeCredit
from agentrl.losses import aggregation
from agentrl.method import Hint, Method, Needs
from agentrl.rollout.takeover import Takeover

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


def self_distillation(
    *,
    hint: Literal["oracle", "answer"] = "oracle",
    answer: str = "",
    frame: str = "A solution of this task:\n{hint}",
    teacher: Literal["start", "current"] = "start",
    reward: float = 0.0,
    bound: float = 10.0,
    high: float = 2.0,
) -> Method:
    """On-policy self-distillation (OPSD): `opd` where the policy, told the solution, is the teacher of itself untold.

    The teacher reads the sampled tokens behind prompts with `frame`, in which {hint} is the oracle's moves or
    `Task.data[answer]`; no gradient flows through it. Its weights are those of the start, or those before each batch:
    the latter need no memory and move with the policy. What helps one task only is not learned this way, and a policy
    too weak to use the hint teaches itself nothing. Sources leave `bound` and `high` open.
    """

    def build() -> Objective:
        from agentrl.losses import credits, surrogates
        from agentrl.losses.objective import Objective, token_ratio

        return Objective(
            token_ratio,
            surrogates.weighted_reinforce(high=high),
            credits=(credits.Distillation(1.0, reward, bound),),
            needs_teacher=True,
            teacher=teacher,
        )

    return Method(
        "self_distillation",
        EpisodeCredit(),
        aggregation.token_mean,
        build,
        needs=Needs(group=2 if reward else 1),
        paper="arXiv:2601.18734",
        hint=Hint(hint, answer, frame),
    )


def dagger(
    *,
    beta: float = 0.5,
    decay: float = 0.95,
    imitation: float = 1.0,
    scale: float = 1.0,
    bound: float = 10.0,
    high: float = 2.0,
) -> Method:
    """Turn-level DAgger: a teacher takes turns over, which are imitated; the policy's own are distilled as in `opd`.

    At policy version v the teacher takes a turn with probability `beta decay^v` (Ross et al. 2011 leave it open, with
    beta 1 at first). `imitation` weighs `-log pi` of the teacher's tokens; 0 leaves them out of training. The teacher's
    label of a token of the policy is `log pi_T - log pi`, as its advantage.
    """

    def build() -> Objective:
        from agentrl.losses import credits, regularisers, surrogates, weights
        from agentrl.losses.objective import Objective, Term, token_ratio

        terms = (Term(imitation, regularisers.imitation, weights.taught, teaches=True),) if imitation else ()
        return Objective(
            token_ratio,
            surrogates.weighted_reinforce(high=high),
            regularisers=terms,
            credits=(credits.Distillation(scale, 0.0, bound), credits.untaught),
            needs_teacher=True,
            needs_reference=scale != 1.0,
        )

    takeover = Takeover(beta, decay)
    return Method(
        "dagger",
        EpisodeCredit(),
        aggregation.token_mean,
        build,
        needs=Needs(group=1),
        takeover=takeover,
        imitates=True,
    )
