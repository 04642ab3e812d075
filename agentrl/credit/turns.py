"""Credit that differs between the steps of one trajectory without comparing states: returns-to-go, turns, values.

Time is the `index` column of the table; the order of its rows says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from agentrl.batch import StepTable
from agentrl.credit.baselines import center
from agentrl.credit.returns import outcomes, step_returns
from agentrl.credit.segments import Doubles, segment_sum, suffix_sums, time_order
from agentrl.errors import TrainingError


@dataclass(frozen=True, slots=True)
class ReturnToGo:
    """The plain return from each step on, without a baseline."""

    gamma: float = 1.0

    def __call__(self, table: StepTable) -> Doubles:
        return step_returns(table, self.gamma)


@dataclass(frozen=True, slots=True)
class TurnCredit:
    """Rewards of all steps of a group normalised jointly, then summed ahead with a discount (IGPO).

    The outcome is the reward of the last step and is normalised with the others.
    """

    gamma: float = 1.0
    epsilon: float = 1e-6

    def __call__(self, table: StepTable) -> Doubles:
        normal = center(table.reward, table.group, epsilon=self.epsilon)
        return suffix_sums(normal, self.gamma, table.trajectory, table.index)


@dataclass(frozen=True, slots=True)
class TermCredit:
    """Each named score of a trajectory against its group by itself, then a weighted sum (normalise, then sum).

    A term of large spread cannot drown the others, as it does where scores are added before they are normalised.
    "reward" names the total reward. Raises `TrainingError` for a name that no step of the batch has.
    """

    weights: tuple[tuple[str, float], ...]
    epsilon: float = 1e-6

    def __call__(self, table: StepTable) -> Doubles:
        total = np.zeros(len(table))
        for name, weight in self.weights:
            values = table.reward if name == "reward" else table.scores.get(name)
            if values is None:
                raise TrainingError(
                    f"no step of the batch has a score {name!r}; there are: {', '.join(['reward', *table.scores])}."
                )
            found = outcomes(replace(table, reward=values))
            total += weight * center(found.value, found.group, epsilon=self.epsilon)[found.of_row]
        return total


@dataclass(frozen=True, slots=True)
class StepGAE:
    """Generalised advantage estimation over steps with a critic's values, whitened over steps (StepPO).

    Raises `TrainingError` where the batch has no values.
    """

    gamma: float = 1.0
    trace: float = 1.0
    epsilon: float = 1e-8

    def __call__(self, table: StepTable) -> Doubles:
        advantage = generalised_advantages(table, self.gamma, self.trace)
        deviation = advantage.std(ddof=1) if len(advantage) > 1 else 0.0
        if deviation == 0.0:
            return np.zeros(len(table))
        whitened: Doubles = (advantage - advantage.mean()) / (deviation + self.epsilon)
        return whitened


def generalised_advantages(table: StepTable, gamma: float, trace: float) -> Doubles:
    """`A_t = delta_t + gamma trace A_{t+1}`, `delta_t = r_t + gamma V_{t+1} - V_t`, shape [rows]; add V for returns.

    After the last step V is 0, except where a limit cut the episode: there the value before that step stands for
    the one after it, which no critic has seen.
    """
    if table.value is None:
        raise TrainingError("step GAE needs a critic's values; give the method a `critic`, or choose step_return.")
    order = time_order(table.trajectory, table.index)
    ordered, value = table.trajectory[order], table.value[order]
    ahead = np.where(table.truncated[order], value, 0.0)
    same = ordered[1:] == ordered[:-1]
    ahead[:-1] = np.where(same, value[1:], ahead[:-1])
    following = np.empty(len(table))
    following[order] = ahead
    delta = table.reward + gamma * following - table.value
    return suffix_sums(delta, gamma * trace, table.trajectory, table.index)


@dataclass(frozen=True, slots=True)
class HardAttribution:
    """A step that several branches share gets the mean of its rows' credit (ARPO's hard attribution).

    Without it each branch trains the shared step with its own (soft). Under a sum over tokens and at ratio 1 the two
    have one gradient, as a shared step is a row in every trajectory that holds it.
    """

    rule: Callable[[StepTable], Doubles]

    def __call__(self, table: StepTable) -> Doubles:
        credit = self.rule(table)
        steps = int(table.step.max(initial=-1)) + 1
        held = np.bincount(table.step, minlength=steps)
        mean: Doubles = (segment_sum(credit, table.step, steps) / np.maximum(held, 1))[table.step]
        return mean


@dataclass(frozen=True, slots=True)
class BranchCredit:
    """By how much the mean return below a branch differs from that below the fork it left.

    A step's value is the mean return of the trajectories that hold it; the steps between two forks share the
    difference between their value and that before the fork. Along a trajectory the differences add up to its return
    minus the group's mean.
    """

    def __call__(self, table: StepTable) -> Doubles:
        found = outcomes(table)
        groups = int(found.group.max(initial=-1)) + 1
        mean = segment_sum(found.value, found.group, groups) / np.maximum(np.bincount(found.group, minlength=groups), 1)
        steps = int(table.step.max(initial=-1)) + 1
        held = np.bincount(table.step, minlength=steps)
        value = (segment_sum(found.value[found.of_row], table.step, steps) / np.maximum(held, 1))[table.step]
        order = time_order(table.trajectory, table.index)
        trajectory, count, ordered = table.trajectory[order], held[table.step][order], value[order]
        begins = np.ones(len(order), np.bool_)
        begins[1:] = trajectory[1:] != trajectory[:-1]
        opens = begins.copy()
        # Leaves below a step only ever drop out, so an equal count is an equal set of them.
        opens[1:] |= count[1:] != count[:-1]
        before = mean[table.group[order]]
        before[1:] = np.where(begins[1:], before[1:], ordered[:-1])
        start = np.maximum.accumulate(np.where(opens, np.arange(len(order)), 0))
        credit = np.empty(len(order))
        credit[order] = ordered - before[start]
        return credit
