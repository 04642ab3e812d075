"""New rewards and named columns for a table (stage S2), from what its trajectories show; rows keep their order.

A shaping reads what was sampled and what came of it; it knows neither weights nor advantages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agentrl.batch import StepTable
from agentrl.credit.returns import outcomes
from agentrl.credit.segments import Doubles, segment_sum
from agentrl.errors import TrainingError
from agentrl.types import Group, Trajectory

FIRST_CALL = "first_call"
"Of each row: sampled tokens of its trajectory before the step with the first tool call; -1 where there is none."


@dataclass(frozen=True, slots=True)
class Unlikeliness:
    """`r (1 - beta rank / n)` for a success: among n members the rarest keeps its reward whole (He et al. 2025).

    rank counts the members that were less likely, by mean log-probability under the sampler; members that were equally
    likely share a rank. Failures keep their reward.
    """

    beta: float = 0.25

    def __call__(self, groups: Sequence[Group], table: StepTable) -> StepTable:
        factor: list[float] = []
        for group in groups:
            likely = np.array([_mean_logprob(trajectory) for trajectory in group.trajectories])
            rank = (likely[None, :] < likely[:, None]).sum(1)
            cut = 1.0 - self.beta * rank / max(len(likely), 1)
            factor.extend(c if t.success else 1.0 for c, t in zip(cut.tolist(), group.trajectories, strict=True))
        return replace(table, reward=table.reward * np.array(factor)[table.trajectory])


@dataclass(frozen=True, slots=True)
class FirstCalls:
    """Adds the column `first_call`, which `PositionBonus` reads."""

    def __call__(self, groups: Sequence[Group], table: StepTable) -> StepTable:
        places = [_first_call(trajectory) for group in groups for trajectory in group.trajectories]
        column = np.array(places, np.float64)[table.trajectory]
        return replace(table, scores={**table.scores, FIRST_CALL: column})


@dataclass(frozen=True, slots=True)
class PositionBonus:
    """A rule's credit, with a bonus for successes that call a tool earlier than their group (ASPO, Lin and Xu 2025).

    `A + clip(strength (mean p - p) / mean L, -bound A, bound A)` where A > 0 and a tool was called; p is the place of
    the first call, L the length, in sampled tokens, means over those trajectories of the group. As the bonus is at most
    a share of A, no sign turns. `strength` below 0 favours late calls. Raises `TrainingError` without `FirstCalls`.
    """

    rule: Callable[[StepTable], Doubles]
    strength: float = 1.0
    bound: float = 0.5

    def __call__(self, table: StepTable) -> Doubles:
        if FIRST_CALL not in table.scores:
            raise TrainingError("a bonus by position needs the column `first_call`; add FirstCalls to the shapings.")
        credit = self.rule(table)
        found = outcomes(table)
        place = np.zeros(len(found.value))
        place[found.of_row] = table.scores[FIRST_CALL]
        good = np.zeros(len(found.value), np.bool_)
        good[found.of_row] = credit > 0
        chosen = good & (place >= 0)
        groups = int(found.group.max(initial=-1)) + 1
        count = np.maximum(np.bincount(found.group[chosen], minlength=groups), 1)
        mean = segment_sum(place[chosen], found.group[chosen], groups) / count
        length = segment_sum(found.tokens[chosen], found.group[chosen], groups) / count
        early = self.strength * (mean[found.group] - place) / np.maximum(length[found.group], 1.0)
        bonus = np.where(chosen, early, 0.0)[found.of_row]
        limit = self.bound * np.maximum(credit, 0.0)
        shaped: Doubles = credit + np.clip(bonus, -limit, limit)
        return shaped


def _mean_logprob(trajectory: Trajectory) -> float:
    parts = [step.logprobs for step in trajectory.steps]
    found = np.concatenate(parts) if parts else np.zeros(0)
    return float(found.mean(dtype=np.float64)) if len(found) else 0.0


def _first_call(trajectory: Trajectory) -> int:
    before = 0
    for step in trajectory.steps:
        if step.action.tool_calls:
            return before
        before += len(step.tokens)
    return -1
