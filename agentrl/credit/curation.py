"""Which trajectories are trained on (stage S5): groups in, groups with members dropped out.

A group left with fewer than two members has no baseline and is dropped, and the batch is smaller by it; a `Keep` is
asked before the batch is cut, so another group is played in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from agentrl.types import Group, Status, Trajectory


@dataclass(frozen=True, slots=True)
class Varied:
    """A `Keep`: the members differ in their return, or in whether they succeeded (DAPO's dynamic sampling).

    A penalty in the reward makes the returns of a group of successes differ; by "success" it is dropped all the same.
    """

    by: Literal["return", "success"] = "return"

    def __call__(self, group: Group) -> bool:
        values = [float(t.success) if self.by == "success" else t.reward for t in group.trajectories]
        return len(set(values)) > 1


@dataclass(frozen=True, slots=True)
class DropEqual:
    """Drop groups that `varied` would not keep, so that they leave the denominators too (DAPO without the refill)."""

    varied: Varied = Varied()

    def __call__(self, groups: Sequence[Group]) -> Sequence[Group]:
        return [group for group in groups if self.varied(group)]


@dataclass(frozen=True, slots=True)
class DropTruncated:
    """Drop trajectories that a limit ended: they are neither won nor lost."""

    def __call__(self, groups: Sequence[Group]) -> Sequence[Group]:
        return _kept(groups, lambda group: [t for t in group.trajectories if t.status is not Status.TRUNCATED])


@dataclass(frozen=True, slots=True)
class MaximumVariance:
    """The `size` members whose returns vary most: the k lowest and the rest from the top (D3S, PODS)."""

    size: int

    def __call__(self, groups: Sequence[Group]) -> Sequence[Group]:
        return _kept(groups, self._choose)

    def _choose(self, group: Group) -> list[Trajectory]:
        members = group.trajectories
        if len(members) <= self.size:
            return list(members)
        rewards = np.array([t.reward for t in members])
        order = np.argsort(rewards, kind="stable")
        splits = [np.r_[order[:low], order[len(order) - self.size + low :]] for low in range(self.size + 1)]
        best = max(splits, key=lambda chosen: float(rewards[chosen].var()))
        return [members[place] for place in sorted(best)]


@dataclass(frozen=True, slots=True)
class Balance:
    """At most `ratio` failures per success in a group, and successes per failure; the later members go."""

    ratio: float = 1.0

    def __call__(self, groups: Sequence[Group]) -> Sequence[Group]:
        return _kept(groups, self._choose)

    def _choose(self, group: Group) -> list[Trajectory]:
        won = [t for t in group.trajectories if t.success]
        lost = [t for t in group.trajectories if not t.success]
        if not won or not lost:
            return list(group.trajectories)
        most = max(1, int(self.ratio * min(len(won), len(lost))))
        chosen = {t.id for t in (*won[:most], *lost[:most])}
        return [t for t in group.trajectories if t.id in chosen]


def _kept(groups: Sequence[Group], choose: Callable[[Group], list[Trajectory]]) -> list[Group]:
    chosen = [replace(group, trajectories=tuple(choose(group))) for group in groups]
    return [group for group in chosen if len(group.trajectories) > 1]
