"""Guidance that becomes the policy's own (BEPA): an expert's success in a group that fails, until there is one of hers.

An expert's tokens are never the policy's: they are imitated, in a term of their own, and have no ratio and no clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from agentrl.credit.baselines import Scale
from agentrl.credit.rules import EpisodeCredit
from agentrl.method import AggregationName, Clipped, Method, aggregate_by
from agentrl.methods.replay import REPLAY_CLIP, Successes
from agentrl.types import JSON, Group, Source, Trajectory

if TYPE_CHECKING:
    from agentrl.losses.objective import Objective


class Assimilation:
    """BEPA's second level: a success of the policy's own takes the place of foreign guidance in all-fail groups.

    A group in which the policy won unaided stays as it is. In one that it lost, a kept success of the task stands in
    for the expert, or where the strategy shows none and no hint won, for the first member. Of `tasks` tasks the last
    `size` successes are kept; those that won with a hint, only until the policy wins by itself. An expert's are never
    kept. A group is read before its own successes are added.
    """

    def __init__(self, *, size: int = 1, tasks: int = 1000) -> None:
        self._own, self._guided = Successes(size, tasks), Successes(size, tasks)

    def __call__(self, groups: Sequence[Group]) -> Sequence[Group]:
        found = [self._assimilated(group) for group in groups]
        memories = {Source.POLICY: self._own, Source.GUIDED: self._guided}
        for group in groups:
            for trajectory in group.trajectories:
                if trajectory.success and trajectory.source in memories:
                    memories[trajectory.source].keep(group.task.id, trajectory)
        return found

    def state(self) -> JSON:
        return {"own": self._own.state(), "guided": self._guided.state()}

    def restore(self, state: JSON) -> None:
        self._own.restore(state["own"])
        self._guided.restore(state["guided"])

    def _assimilated(self, group: Group) -> Group:
        won = {trajectory.source for trajectory in group.trajectories if trajectory.success}
        if Source.POLICY in won:
            return group
        kept = self._own.draw(group)
        if kept is None and not won:
            kept = self._guided.draw(group)
        if kept is None:
            return group
        place = _helped(group.trajectories)
        members = group.trajectories
        return replace(group, trajectories=(*members[:place], kept, *members[place + 1 :]))


def _helped(members: Sequence[Trajectory]) -> int:
    """The expert's place, or that of the success that was guided; the first where there is neither."""
    foreign = (Source.EXPERT, Source.GUIDED)
    return next((place for place, t in enumerate(members) if t.success and t.source in foreign), 0)


def bepa(
    *,
    expert: Literal["shaped", "imitated"] = "shaped",
    imitation: float = 1.0,
    size: int = 1,
    tasks: int = 1000,
    scale: Scale = "group",
    aggregate: AggregationName = "token_mean",
    objective: Clipped = REPLAY_CLIP,
) -> Method:
    """Bi-level expert-to-policy assimilation (BEPA): GRPO whose all-fail groups hold one success from elsewhere.

    Under the strategy `guided` with shares = [1.0] that is a success of the policy itself, told the plan (the paper's
    first level), with the true importance weight of the guided sampler; under `expert` the expert's own trace; under
    any, later on, the last success that the policy had of the task. `imitation` weighs the expert's tokens: "imitated"
    by `-log pi`, "shaped" by `-pi / (pi + 0.1)`, LUFFY's. They count in the baseline with their return. The paper's
    public page leaves the weight and the number kept open; `size` successes are kept of each of `tasks` tasks.
    """

    def build() -> Objective:
        from agentrl.losses import credits, regularisers, weights
        from agentrl.losses.objective import Term

        loss = regularisers.imitation if expert == "imitated" else regularisers.shaped_imitation()
        own = objective.build()
        term = Term(imitation, loss, weights.taught, teaches=True)
        return replace(own, regularisers=(*own.regularisers, term), credits=(*own.credits, credits.untaught))

    return Method(
        "bepa",
        EpisodeCredit(scale=scale),
        aggregate_by(aggregate),
        build,
        curations=(Assimilation(size=size, tasks=tasks),),
        paper="arXiv:2601.05787",
        imitates=True,
    )
