"""What strategies share: episodes and forks by the round, and how many more of them a group may have.

A token that branches share was sampled once and counts once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agentrl.errors import ConfigError
from agentrl.protocols import Rollout
from agentrl.types import Task, Trajectory

Place = tuple[Trajectory, int]
"Where a fork leaves: a trajectory, and the step before which it does."


@dataclass(frozen=True, slots=True)
class Budget:
    """What one group may cost. What is begun is played to its end, so the last round may exceed `tokens` a little."""

    episodes: int
    tokens: int | None = None
    "Sampled tokens; None does not count them."

    def roots(self, played: Sequence[Trajectory]) -> int:
        """How many whole episodes may be begun now, if each costs as much as those played did."""
        left = self.episodes - len(played)
        if self.tokens is not None and played:
            each = sum(len(step.tokens) for t in played for step in t.steps) / len(played)
            left = min(left, int((self.tokens - sampled(played)) / max(each, 1.0)))
        return max(0, left)

    def affordable(self, played: Sequence[Trajectory], places: Iterable[Place]) -> list[Place]:
        """The first of `places` that fit, if each fork costs what its parent sampled from there on."""
        room = self.episodes - len(played)
        tokens = None if self.tokens is None else self.tokens - sampled(played)
        taken: list[Place] = []
        for parent, at in places:
            cost = sum(len(step.tokens) for step in parent.steps[at:])
            if len(taken) >= room:
                break
            if tokens is None or cost <= tokens:
                tokens = None if tokens is None else tokens - cost
                taken.append((parent, at))
        return taken


def sampled(trajectories: Iterable[Trajectory]) -> int:
    """Tokens that were sampled for these members of a group; shared ones count once."""
    return sum(len(step.tokens) for trajectory in trajectories for step in trajectory.own)


def check_tokens(tokens: int | None, episodes: int) -> None:
    """Raises `ConfigError` where the budget does not even hold the first `episodes`."""
    if tokens is not None and tokens < episodes:
        raise ConfigError(
            f"tokens is {tokens} for a group that begins with {episodes} episodes, each of at least one token; raise "
            "it, or leave it out to count episodes only."
        )


async def play_roots(task: Task, first: int, count: int, rollout: Rollout) -> list[Trajectory]:
    """Members `first` to `first + count - 1`, from the start."""
    return await asyncio.gather(*(rollout.episode(task, first + number) for number in range(count)))


async def play_forks(places: Sequence[Place], first: int, rollout: Rollout) -> list[Trajectory]:
    """One fork for each place, as members `first` and on."""
    forks = (rollout.fork(parent, at, first + number) for number, (parent, at) in enumerate(places))
    return await asyncio.gather(*forks)


async def fill(task: Task, members: Sequence[Trajectory], budget: Budget, rollout: Rollout) -> list[Trajectory]:
    """`members` and as many episodes from the start as the budget still has room for."""
    found = list(members)
    while more := budget.roots(found):
        # Against a number of tokens half of them at a time: what they cost is only guessed.
        count = more if budget.tokens is None else (more + 1) // 2
        found += await play_roots(task, len(found), count, rollout)
    return found


def own_places(trajectory: Trajectory) -> range:
    """Steps before which `trajectory` can be forked so that the fork shares what it sampled itself."""
    if not trajectory.status.trains:
        return range(0)
    return range(len(trajectory.steps) - len(trajectory.own) + 1, len(trajectory.steps))
