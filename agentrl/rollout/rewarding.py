"""Adds the scores of reward models to a finished episode, and to a group once all of it is there.

A judge that fails is asked again, not the episode played anew; its silence is a fault and never a zero.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from agentrl.errors import InfrastructureFault
from agentrl.protocols import GroupRewardModel, RewardModel
from agentrl.rollout.limits import Supervision
from agentrl.types import Group, Settlement, Step, Trajectory

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RewardTerm:
    """A reward model under the name that its scores carry."""

    name: str
    model: RewardModel | GroupRewardModel
    weight: float = 1.0
    "The score times this is added to the step's reward; `scores` holds the plain score."


class JudgesFailed(InfrastructureFault):
    """A reward model failed at every try."""


class Judges:
    """All reward models of a run."""

    def __init__(self, terms: Sequence[RewardTerm], deadline: float, supervision: Supervision) -> None:
        self._terms = tuple(terms)
        self._alone = [(term, term.model) for term in terms if not isinstance(term.model, GroupRewardModel)]
        self._together = [(term, term.model) for term in terms if isinstance(term.model, GroupRewardModel)]
        self._deadline = deadline
        self._supervision = supervision

    @property
    def compare(self) -> bool:
        """Whether any of them looks at the members of a group side by side."""
        return bool(self._together)

    async def score(self, trajectory: Trajectory, enter: Callable[[str], None] = lambda stage: None) -> Trajectory:
        """The trajectory with the numbers of every model that looks at one by itself. Raises `JudgesFailed`.

        `enter` is told what is waited for.
        """
        if self._terms:
            trajectory = replace(trajectory, steps=tuple(_with_its_own(step) for step in trajectory.steps))
        for term, model in self._alone:
            enter(f"the reward model {term.name}")
            began = time.monotonic()
            scores = await self._ask(term.name, _of_trajectory(model, trajectory))
            seconds = (time.monotonic() - began) / max(1, len(scores))
            scored = zip(trajectory.steps, scores, strict=True)
            trajectory = replace(
                trajectory, steps=tuple(_with_score(step, term, score, seconds) for step, score in scored)
            )
        return trajectory

    def unscored(self, step: Step) -> Step:
        """`step` with the environment's reward alone: what a fork takes over is scored anew, as part of the fork."""
        return without(step, [term.name for term in self._terms]) if self._terms else step

    async def settle(self, group: Group, known: Settlement | None = None) -> tuple[Group, Settlement | None]:
        """The group with the numbers of every model that compares, and these numbers, to be kept.

        `known` is what was kept of this group before a restart: where it is of the same trajectories, nobody is asked
        again. None where no model compares. Raises `JudgesFailed`.
        """
        if not self._together:
            return group, None
        members = tuple(sorted(trajectory.id for trajectory in group.trajectories))
        if known is None or known.members != members:
            # Each is shown what the episodes brought, not what the models before it said.
            said = {term.name: await self._ask(term.name, _of_group(model, group)) for term, model in self._together}
            known = Settlement(members, said)
        for term, _ in self._together:
            group = _with_scores(group, term, known.scores[term.name])
        return group, known

    async def _ask(self, name: str, question: Callable[[], Awaitable[T]]) -> T:
        tries = self._supervision.attempts
        for attempt in range(tries):
            try:
                async with asyncio.timeout(self._deadline):
                    return await question()
            except Exception as error:
                if attempt + 1 == tries:
                    raise JudgesFailed(f"reward model {name!r} failed {tries} times: {told(error)}") from error
                await asyncio.sleep(self._supervision.backoff * 2**attempt)
        raise AssertionError("unreachable")


def without(step: Step, terms: Sequence[str]) -> Step:
    """`step` with the environment's reward alone, as it was before the reward models called `terms` scored it."""
    if "environment" not in step.scores:
        return step
    kept = {name: score for name, score in step.scores.items() if name not in ("environment", *terms)}
    return replace(step, reward=step.scores["environment"], scores=kept)


def _of_trajectory(model: RewardModel, trajectory: Trajectory) -> Callable[[], Awaitable[list[float]]]:
    async def ask() -> list[float]:
        scores = [float(score) for score in await model.score(trajectory)]
        if len(scores) != len(trajectory.steps) or not np.isfinite(scores).all():
            raise InfrastructureFault(
                f"it returned {scores} for {len(trajectory.steps)} steps; one finite number per step is needed"
            )
        return scores

    return ask


def _of_group(model: GroupRewardModel, group: Group) -> Callable[[], Awaitable[Mapping[str, float]]]:
    async def ask() -> Mapping[str, float]:
        scores = {step: float(score) for step, score in (await model.score_group(group)).items()}
        steps = {step.id for step in group.steps()}
        if scores.keys() != steps or not np.isfinite(list(scores.values())).all():
            raise InfrastructureFault(
                f"it returned {len(scores)} numbers for the {len(steps)} steps of group {group.id}, such as "
                f"{dict(list(scores.items())[:3])}; one finite number for every step is needed"
            )
        return scores

    return ask


def _with_its_own(step: Step) -> Step:
    """The environment's own reward is kept under its name, as a model's is: terms are added to `reward`."""
    return replace(step, scores={**step.scores, "environment": step.reward})


def _with_score(step: Step, term: RewardTerm, score: float, seconds: float = 0.0) -> Step:
    timings = replace(step.timings, reward=step.timings.reward + seconds)
    reward = step.reward + term.weight * score
    return replace(step, reward=reward, scores={**step.scores, term.name: score}, timings=timings)


def _with_scores(group: Group, term: RewardTerm, scores: Mapping[str, float]) -> Group:
    """Branches go on sharing the steps that they share."""
    steps = {id(step): step for trajectory in group.trajectories for step in trajectory.steps}
    scored = {key: _with_score(step, term, scores[step.id]) for key, step in steps.items()}
    members = (replace(t, steps=tuple(scored[id(step)] for step in t.steps)) for t in group.trajectories)
    return replace(group, trajectories=tuple(members))


def told(error: Exception) -> str:
    """The error with its kind, as it stands in a record."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
