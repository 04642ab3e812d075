"""What GTPO changes, in numpy: tokens that good and bad trajectories of a task share, and trajectories without a plan.

Rule: a task's trajectories are compared within one update, which holds its group whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agentrl.batch import UpdateColumns
from agentrl.losses.weights import segment_mean
from agentrl.types import Floats


@dataclass(frozen=True, slots=True)
class ConflictTokens:
    """A `TokenWeight` for tokens at the edges that good and bad trajectories of a task have in common (GTPO).

    A token is in conflict where a trajectory of the other sign has the same token at the same place, counted in sampled
    tokens, and all before it are in conflict too; or the same from the end. In bad trajectories it gets 0, in good ones
    `amplify`; published code multiplies the factors of both ends where they meet, here a token is amplified once.
    """

    amplify: float = 2.0

    def __call__(self, update: UpdateColumns) -> Floats:
        starts, lengths = _spans(update.trajectory)
        place = np.arange(len(update)) - np.repeat(starts, lengths)
        ahead = np.repeat(lengths, lengths) - 1 - place
        conflict = self._edge(update, place) | self._edge(update, ahead)
        weight = np.where(update.advantage > 0, self.amplify, 0.0)
        return np.where(conflict & (update.advantage != 0), weight, 1.0).astype(np.float32)

    def _edge(self, update: UpdateColumns, place: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tokens in conflict whose neighbours towards place 0 all are."""
        group = update.table.group[update.columns.row].astype(np.int64)
        key = np.stack([group, place, update.columns.token.astype(np.int64)], axis=1)
        _, same = np.unique(key, axis=0, return_inverse=True)
        same = same.reshape(-1)
        size = int(same.max(initial=-1)) + 1
        good = np.bincount(same, weights=update.advantage > 0, minlength=size) > 0
        bad = np.bincount(same, weights=update.advantage < 0, minlength=size) > 0
        shared = (good & bad)[same]
        # The first place of each trajectory that is not shared ends the edge.
        owner = np.unique(update.trajectory, return_inverse=True)[1].reshape(-1)
        first = np.full(int(owner.max(initial=-1)) + 1, np.iinfo(np.int64).max)
        np.minimum.at(first, owner[~shared], place[~shared])
        edge: npt.NDArray[np.bool_] = place < first[owner]
        return edge


@dataclass(frozen=True, slots=True)
class CalmTrajectories:
    """A `TokenWeight`: 0 for trajectories whose mean entropy exceeds `limit`, nats (GTPO's filter; ln 2)."""

    limit: float = float(np.log(2.0))

    def __call__(self, update: UpdateColumns) -> Floats:
        return (segment_mean(update.entropy, update.trajectory) <= self.limit).astype(np.float32)


@dataclass(frozen=True, slots=True)
class EntropyCharge:
    """A `TokenCredit`: the advantage less `price` times the trajectory's mean entropy (GTPO).

    Only where there is an advantage, so that a group of equal returns says nothing; published code charges it too.
    """

    price: float = 0.1

    def __call__(self, update: UpdateColumns) -> Floats:
        charge = self.price * segment_mean(update.entropy, update.trajectory)
        return np.where(update.advantage == 0, 0.0, update.advantage - charge).astype(np.float32)


def _spans(trajectory: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where each trajectory's tokens begin, and how many there are; they stand together."""
    begins = np.ones(len(trajectory), np.bool_)
    begins[1:] = trajectory[1:] != trajectory[:-1]
    starts = np.flatnonzero(begins)
    return starts, np.diff(np.r_[starts, len(trajectory)])
