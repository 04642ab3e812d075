"""Adds the scores of reward models to a finished episode.

A judge that fails is asked again, not the episode played anew; its silence is a fault and never a zero.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from agentrl.errors import InfrastructureFault
from agentrl.protocols import RewardModel
from agentrl.rollout.episode import Episode
from agentrl.rollout.limits import Supervision
from agentrl.types import Step, Trajectory


@dataclass(frozen=True, slots=True)
class RewardTerm:
    """A reward model under the name that its scores carry."""

    name: str
    model: RewardModel
    weight: float = 1.0
    "The score times this is added to the step's reward; `scores` holds the plain score."


class JudgesFailed(InfrastructureFault):
    """A reward model failed at every try."""


class Judges:
    """All reward models of a run."""

    def __init__(self, terms: Sequence[RewardTerm], deadline: float, supervision: Supervision) -> None:
        self._terms = tuple(terms)
        self._deadline = deadline
        self._supervision = supervision

    async def score(self, episode: Episode, trajectory: Trajectory) -> Trajectory:
        """The trajectory with every model's numbers added. Raises `JudgesFailed`."""
        if self._terms:
            trajectory = replace(trajectory, steps=tuple(_with_its_own(step) for step in trajectory.steps))
        for term in self._terms:
            episode.enter(f"the reward model {term.name}")
            began = time.monotonic()
            scores = await self._ask(term, trajectory)
            seconds = (time.monotonic() - began) / max(1, len(scores))
            scored = zip(trajectory.steps, scores, strict=True)
            trajectory = replace(
                trajectory, steps=tuple(_with_score(step, term, score, seconds) for step, score in scored)
            )
        return trajectory

    def unscored(self, step: Step) -> Step:
        """`step` with the environment's reward alone: what a fork takes over is scored anew, as part of the fork."""
        scores = dict(step.scores)
        if not self._terms or "environment" not in scores:
            return step
        reward = scores.pop("environment")
        for term in self._terms:
            scores.pop(term.name, None)
        return replace(step, reward=reward, scores=scores)

    async def _ask(self, term: RewardTerm, trajectory: Trajectory) -> list[float]:
        tries = self._supervision.attempts
        for attempt in range(tries):
            try:
                async with asyncio.timeout(self._deadline):
                    scores = [float(score) for score in await term.model.score(trajectory)]
                if len(scores) != len(trajectory.steps) or not np.isfinite(scores).all():
                    raise InfrastructureFault(
                        f"it returned {scores} for {len(trajectory.steps)} steps; one finite number per step is needed"
                    )
                return scores
            except Exception as error:
                if attempt + 1 == tries:
                    raise JudgesFailed(f"reward model {term.name!r} failed {tries} times: {told(error)}") from error
                await asyncio.sleep(self._supervision.backoff * 2**attempt)
        raise AssertionError("unreachable")


def _with_its_own(step: Step) -> Step:
    """The environment's own reward is kept under its name, as a model's is: terms are added to `reward`."""
    return replace(step, scores={**step.scores, "environment": step.reward})


def _with_score(step: Step, term: RewardTerm, score: float, seconds: float) -> Step:
    timings = replace(step.timings, reward=step.timings.reward + seconds)
    reward = step.reward + term.weight * score
    return replace(step, reward=reward, scores={**step.scores, term.name: score}, timings=timings)


def told(error: Exception) -> str:
    """The error with its kind, as it stands in a record."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
