"""Which steps count as taken in the same place (stage S3): by history, by likeness of what was shown, or not at all.

A shaping gives every row of the table a new anchor; rewards and the order of the rows stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

import numpy as np

from agentrl.batch import Ints, StepTable
from agentrl.credit.returns import step_returns
from agentrl.credit.segments import Doubles, dense_ids, segment_moments, time_order
from agentrl.errors import ConfigError, TrainingError
from agentrl.types import Group, Step


@dataclass(frozen=True, slots=True)
class HistoryAnchors:
    """Two steps are in the same place where their last `states` states were equal; None: all states since the start.

    None is the control for anchors: what they give beyond the shared beginnings of episodes is gone. Raises
    `TrainingError` where no step has a state key.
    """

    states: int | None = None

    def __call__(self, groups: Sequence[Group], table: StepTable) -> StepTable:
        return replace(table, anchor=history_codes(table, self.states))


@dataclass(frozen=True, slots=True)
class UniqueAnchors:
    """No two steps are in the same place: what a method with anchors does without any (a control)."""

    def __call__(self, groups: Sequence[Group], table: StepTable) -> StepTable:
        return replace(table, anchor=np.arange(len(table), dtype=np.int32))


@dataclass(frozen=True, slots=True)
class SimilarAnchors:
    """Steps of a group whose observations read alike share a place, for environments without state keys (GiGPO).

    Greedy: a text joins the first place whose first text it matches to at least `threshold` (difflib's ratio), else
    it opens one, so the order of the steps matters. Only what the last action showed is read, not the history. A
    step that was shown no text has no place.
    """

    threshold: float = 0.95

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold < 1.0:
            raise ConfigError(
                f"the threshold of similar anchors is {self.threshold:g}; it lies between 0 and 1. For equal states "
                "alone use the environment's state keys."
            )

    def __call__(self, groups: Sequence[Group], table: StepTable) -> StepTable:
        anchors: list[int] = []
        opened = 0
        for group in groups:
            places: list[SequenceMatcher[str]] = []
            known: dict[str, int] = {"": -1}
            for step in (step for trajectory in group.trajectories for step in trajectory.steps):
                text = _shown(step)
                if text not in known:
                    place = self._first_fit(text, places)
                    if place == len(places):
                        # Without autojunk, which forgets the common letters of any text of 200 or more.
                        places.append(SequenceMatcher(None, "", text, autojunk=False))
                    known[text] = opened + place
                anchors.append(known[text])
            opened += len(places)
        return replace(table, anchor=np.array(anchors, np.int32))

    def _first_fit(self, text: str, places: Sequence[SequenceMatcher[str]]) -> int:
        for number, place in enumerate(places):
            place.set_seq1(text)
            # Two cheap upper bounds first; the ratio is quadratic in the length.
            if all(ratio() >= self.threshold for ratio in (place.real_quick_ratio, place.quick_ratio, place.ratio)):
                return number
        return len(places)


@dataclass(frozen=True, slots=True)
class HistoryCredit:
    """A step against those with the same last state, the same last two, up to `history` + 1, averaged (HGPO).

    `sum_k k^alpha a_k / sum_k k^alpha` over the depths k at which the step's place has differing returns: a longer
    shared history makes a fairer comparison and weighs more. `a_k` divides by the biased deviation, as in the source.
    The source leaves alpha open.
    """

    history: int = 2
    gamma: float = 0.95
    alpha: float = 1.0
    epsilon: float = 1e-6

    def __call__(self, table: StepTable) -> Doubles:
        returns = step_returns(table, self.gamma)
        total, weights = np.zeros(len(table)), np.zeros(len(table))
        for depth in range(1, self.history + 2):
            code = history_codes(table, depth)
            held = code >= 0
            place = dense_ids(table.group[held], code[held])
            moments = segment_moments(returns[held], place, int(place.max(initial=-1)) + 1)
            biased = moments.std * np.sqrt(np.maximum(moments.count - 1, 0) / np.maximum(moments.count, 1))
            weight = np.where(moments.constant[place], 0.0, float(depth) ** self.alpha)
            scale = np.where(moments.constant, 1.0, biased + self.epsilon)
            total[held] += weight * (returns[held] - moments.mean[place]) / scale[place]
            weights[held] += weight
        average: Doubles = total / np.where(weights > 0, weights, 1.0)
        return average


def history_codes(table: StepTable, states: int | None) -> Ints:
    """Per row the id of its last `states` anchors (None: all of them), -1 where the row itself has no anchor.

    A history that begins within those states equals only histories that begin there too.
    """
    if states is not None and states < 1:
        raise ConfigError(f"a history of {states} states names no place; at least 1 is needed.")
    if not np.any(table.anchor >= 0):
        raise TrainingError(
            "history anchors need state keys, and the environment gives none. Give it a `state_key`, or choose "
            "gigpo_similar or a method without anchors (grpo, step_return)."
        )
    order = time_order(table.trajectory, table.index)
    before = np.full(len(table), -1)
    before[order[1:]] = np.where(table.trajectory[order[1:]] == table.trajectory[order[:-1]], order[:-1], -1)
    codes = dense_ids(table.anchor)
    distinct = int(codes.max()) + 1
    longest = int(table.index.max()) + 1
    for _ in range(1, longest if states is None else states):
        codes = dense_ids(np.where(before >= 0, codes[before], -1), table.anchor)
        # Each pass only ever splits places, so an equal number of them is the same set: no longer history splits more.
        if int(codes.max()) + 1 == distinct:
            break
        distinct = int(codes.max()) + 1
    return np.where(table.anchor >= 0, codes, -1).astype(np.int32)


def _shown(step: Step) -> str:
    return "\n".join(message.content for message in step.observation.messages)
