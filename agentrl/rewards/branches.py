"""The value of a state from the branches that leave it, and the reward of a step as the value that it added.

The values are those of one group and one policy: no model, no discount, nothing kept from one group to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agentrl.rewards.returns import environment_return
from agentrl.types import Group, Trajectory


class BranchValue:
    """Monte Carlo step rewards of a branching rollout, by step id; asked once, when the group is complete.

    A step's reward is V(after) - V(before), where V of a state is the mean return of the trajectories that pass
    through it (VinePPO, arXiv 2410.01679; SPO-tree, arXiv 2505.23564). It tells steps apart only where trajectories
    fork: without forks the first step carries return minus group mean, and the others 0.
    """

    async def score_group(self, group: Group) -> Mapping[str, float]:
        return step_gains(group, environment_return)


def step_gains(group: Group, value_of: Callable[[Trajectory], float]) -> dict[str, float]:
    """V(after) - V(before) of each step, by its id.

    Along a trajectory they sum to `value_of(trajectory)` minus the group's mean.
    """
    values = state_values(group, value_of)
    root = _mean([value_of(trajectory) for trajectory in group.trajectories])
    gains: dict[str, float] = {}
    for trajectory in group.trajectories:
        before = root
        for step in trajectory.steps:
            gains[step.id] = values[step.id] - before
            before = values[step.id]
    return gains


def state_values(group: Group, value_of: Callable[[Trajectory], float]) -> dict[str, float]:
    """For the state after each step, by the step's id, the mean of `value_of` over the trajectories that hold it."""
    below: dict[str, list[float]] = {}
    for trajectory in group.trajectories:
        value = value_of(trajectory)
        for step in trajectory.steps:
            below.setdefault(step.id, []).append(value)
    return {step: _mean(values) for step, values in below.items()}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
