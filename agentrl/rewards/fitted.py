"""What reward models on a step model share: batched reading, fitting in the run, and a state that is saved.

A model that cannot read a trajectory raises; it never scores 0 for want of an answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agentrl.rewards.batching import Batched
from agentrl.rewards.step_model import StepModel
from agentrl.types import Group, Trajectory

if TYPE_CHECKING:
    from torch import Tensor


class FittedReward(ABC):
    """Implements `protocols.RewardModel` and `protocols.TrainableReward`; a subclass says what is read and learned."""

    def __init__(self, model: StepModel, start: Path | None) -> None:
        """`start` is the folder of an earlier `save`."""
        self.model = model
        self._batched: Batched[Trajectory, list[float]] = Batched(self._read)
        if start is not None:
            self.model.load(start)

    @property
    def trains(self) -> bool:
        return self.model.trains

    async def score(self, trajectory: Trajectory) -> Sequence[float]:
        """Raises `InfrastructureFault` where the model fails."""
        return await self._batched(trajectory)

    def fit(self, groups: Sequence[Group]) -> Mapping[str, float]:
        return self.model.fit([t for group in groups for t in group.trajectories], self)

    def save(self, folder: Path) -> None:
        self.model.save(folder)

    def load(self, folder: Path) -> None:
        self.model.load(folder)

    async def close(self) -> None:
        await self._batched.close()

    @abstractmethod
    def losses(self, outputs: Tensor, trajectory: Trajectory) -> Tensor:
        """From the outputs of each step, what is brought down."""

    @abstractmethod
    def forecasts(self, outputs: Tensor, trajectory: Trajectory) -> tuple[Tensor, Tensor]:
        """What the outputs say, and what came."""

    @abstractmethod
    def _read(self, trajectories: Sequence[Trajectory]) -> list[list[float]]: ...
