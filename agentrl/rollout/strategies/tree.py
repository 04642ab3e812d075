"""Groups that grow as trees: in every round each branch of the round before splits.

A branch splits below where it was split before, so that no two rounds split at one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentrl.errors import ConfigError
from agentrl.protocols import Demands, Rollout
from agentrl.rollout.strategies.rounds import Budget, check_tokens, fill, own_places, play_forks, play_roots
from agentrl.types import Task, Trajectory


@dataclass(frozen=True, slots=True)
class Tree:
    """`roots` episodes; then each trajectory of the last round splits in `width` at one step, until the group is full.

    The step is drawn uniformly from those below the trajectory's last split, the first one left out. Sources of tree
    rollouts differ in where they split; this is our choice. A tree that cannot grow is filled up with episodes from
    the start. `tokens` bounds what is sampled for a group.
    """

    roots: int = 1
    width: int = 2
    tokens: int | None = None

    def __post_init__(self) -> None:
        if self.roots < 1 or self.width < 2:
            raise ConfigError(f"roots is {self.roots} and width {self.width}; allowed are 1 and 2, and above.")
        check_tokens(self.tokens, self.roots)

    @property
    def demands(self) -> Demands:
        return Demands(group=max(2, self.roots), forks=True)

    async def run(self, task: Task, size: int, rollout: Rollout) -> Sequence[Trajectory]:
        budget = Budget(size, self.tokens)
        members = await play_roots(task, 0, self.roots, rollout)
        leaves = [(root, own_places(root)) for root in members]
        while splits := [(leaf, _drawn(leaf, steps, rollout)) for leaf, steps in leaves if steps]:
            wanted = [split for split in splits for _ in range(self.width - 1)]
            forks = await play_forks(budget.affordable(members, wanted), len(members), rollout)
            if not forks:
                break
            members += forks
            # What was split goes on below its split, beside its forks.
            below = [(leaf, range(at + 1, len(leaf.steps))) for leaf, at in splits]
            leaves = [*below, *((fork, own_places(fork)) for fork in forks)]
        return await fill(task, members, budget, rollout)


def _drawn(leaf: Trajectory, steps: range, rollout: Rollout) -> int:
    return rollout.dice(f"{leaf.id} {steps.start}").choice(steps)
