"""Groups that branch: some episodes from the start, the others forked from them where the policy was uncertain.

It is decided over finished episodes, in rounds: which steps were taken where a branch leaves does not depend on what
came after, so credit sees what it would see had the branch left on the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from agentrl.errors import ConfigError
from agentrl.protocols import Demands, Rollout
from agentrl.rollout.strategies.rounds import (
    Budget,
    Place,
    check_tokens,
    fill,
    own_places,
    play_forks,
    play_roots,
)
from agentrl.types import Task, Trajectory


@dataclass(frozen=True, slots=True)
class EntropyBranching:
    """ARPO's adaptive rollout (arXiv 2507.19849): fork before a step with probability `clip(chance + weight dH, 0, 1)`.

    dH is the entropy of the step less that of the first step that the trajectory sampled itself, both divided by
    ln(top + 1), the largest that `top` alternatives and a bucket for the rest can have. A group begins with `initial`
    episodes (half of it where None). Each place is tried `beams` - 1 times, early places first; forks may be forked.
    What is left is filled with episodes from the start. `tokens` bounds what is sampled for a group.
    """

    initial: int | None = None
    beams: int = 2
    chance: float = 0.5
    weight: float = 0.2
    top: int = 10
    tokens: int | None = None

    def __post_init__(self) -> None:
        _check(self.initial, self.beams, self.chance)
        check_tokens(self.tokens, self.initial or 1)
        if self.top < 2:
            raise ConfigError(f"top is {self.top}; an entropy needs at least 2 alternatives.")

    @property
    def demands(self) -> Demands:
        return Demands(group=max(2, self.initial or 2), forks=True, top_logprobs=self.top)

    async def run(self, task: Task, size: int, rollout: Rollout) -> Sequence[Trajectory]:
        return await _grow(self, task, Budget(size, self.tokens), rollout)

    def probability(self, trajectory: Trajectory, at: int) -> float:
        """Of a fork of `trajectory` before step `at`."""
        first, here = (step.scores.get("entropy", 0.0) for step in (trajectory.own[0], trajectory.steps[at]))
        return min(1.0, max(0.0, self.chance + self.weight * (here - first) / math.log(self.top + 1)))


@dataclass(frozen=True, slots=True)
class RandomBranching:
    """The control of entropy branching: the same rounds, each place with probability `chance` and nothing measured."""

    initial: int | None = None
    beams: int = 2
    chance: float = 0.5
    tokens: int | None = None

    def __post_init__(self) -> None:
        _check(self.initial, self.beams, self.chance)
        check_tokens(self.tokens, self.initial or 1)

    @property
    def demands(self) -> Demands:
        return Demands(group=max(2, self.initial or 2), forks=True)

    async def run(self, task: Task, size: int, rollout: Rollout) -> Sequence[Trajectory]:
        return await _grow(self, task, Budget(size, self.tokens), rollout)

    def probability(self, trajectory: Trajectory, at: int) -> float:
        return self.chance


async def _grow(
    rule: EntropyBranching | RandomBranching, task: Task, budget: Budget, rollout: Rollout
) -> list[Trajectory]:
    half = budget.episodes // 2 if rule.initial is None else rule.initial
    members: Sequence[Trajectory]
    members = fresh = await play_roots(task, 0, max(1, half), rollout)
    while fresh:
        places = budget.affordable(members, _drawn(rule, fresh, rollout))
        fresh = await play_forks(places, len(members), rollout)
        members = [*members, *fresh]
    return await fill(task, members, budget, rollout)


def _drawn(rule: EntropyBranching | RandomBranching, sources: Sequence[Trajectory], rollout: Rollout) -> list[Place]:
    """Places that the dice chose, in order of time: a full group has no room for later ones."""
    found: list[Place] = []
    for source in sources:
        for at in own_places(source):
            dice = rollout.dice(f"{source.id} {at}")
            found += [(source, at) for _ in range(rule.beams - 1) if dice.random() < rule.probability(source, at)]
    return sorted(found, key=lambda place: place[1])


def _check(initial: int | None, beams: int, chance: float) -> None:
    if initial is not None and initial < 1:
        raise ConfigError(f"initial is {initial}; a group begins with at least 1 episode.")
    if beams < 2 or not 0.0 <= chance <= 1.0:
        raise ConfigError(f"beams is {beams} and chance {chance:g}; allowed are 2 and above, and 0 to 1.")
