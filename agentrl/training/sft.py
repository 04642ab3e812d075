"""Supervised fine-tuning on trajectories, by the same learner and packer: the warm start.

Rule: the loss of an update is the mean over its sampled tokens of -log p; what the environment wrote is context only.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from agentrl.batch import TrainingBatch, build_batch
from agentrl.errors import ConfigError, TrainingError
from agentrl.losses.objective import LossInputs, LossOutput, Proximal
from agentrl.training.learner import TorchLearner
from agentrl.types import Group, Trajectory


@dataclass(frozen=True, slots=True)
class NegativeLogprob:
    """`-log p` of each token, whatever the advantage."""

    proximal: ClassVar[Proximal] = "current"
    needs_entropy: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = False

    def __call__(self, inputs: LossInputs) -> LossOutput:
        return LossOutput(-inputs.logprobs)


@dataclass(frozen=True, slots=True)
class SftSettings:
    epochs: int = 1
    batch_trajectories: int = 32
    "Trajectories of one update."
    seed: int = 0
    "Of the order."

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_trajectories < 1:
            raise ConfigError(
                f"epochs is {self.epochs} and batch_trajectories {self.batch_trajectories}; both are at least 1."
            )


@dataclass(frozen=True, slots=True)
class SftReport:
    losses: tuple[float, ...]
    "Mean negative log-probability per sampled token, in nats, of every update before it was made."
    tokens: int
    "Sampled tokens trained on."
    seconds: float


def fine_tune(
    learner: TorchLearner,
    trajectories: Sequence[Trajectory],
    settings: SftSettings,
    on_update: Callable[[int, int, float], None] | None = None,
) -> SftReport:
    """Every trajectory once per epoch, in seeded random order. `learner` was made with `NegativeLogprob()`.

    `on_update` is told (update from 1, updates in all, loss). Raises `TrainingError` where there is nothing to learn.
    """
    useful = [trajectory for trajectory in trajectories if any(len(step.tokens) for step in trajectory.steps)]
    if not useful:
        raise TrainingError(
            f"none of {len(trajectories)} trajectories holds a sampled token; give demonstrations that act."
        )
    started = time.perf_counter()
    order = list(range(len(useful)))
    shuffle = random.Random(settings.seed)
    per_epoch = -(-len(order) // settings.batch_trajectories)
    losses: list[float] = []
    tokens = 0
    for _ in range(settings.epochs):
        shuffle.shuffle(order)
        for start in range(0, len(order), settings.batch_trajectories):
            batch = supervised_batch([useful[i] for i in order[start : start + settings.batch_trajectories]])
            report = learner.update(batch)
            tokens += len(batch.columns)
            losses.append(report.metrics.get("loss", float("nan")))
            if on_update is not None:
                on_update(len(losses), per_epoch * settings.epochs, losses[-1])
    return SftReport(tuple(losses), tokens, time.perf_counter() - started)


def supervised_batch(trajectories: Sequence[Trajectory]) -> TrainingBatch:
    """Advantage 1 and the token mean."""
    batch = build_batch([Group(trajectory.id, trajectory.task, (trajectory,)) for trajectory in trajectories])
    size = len(batch.columns)
    return replace(batch, advantage=np.ones(size, np.float32), scale=np.full(size, 1 / size, np.float32))
