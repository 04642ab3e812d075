"""Where an episode begins: at a reset, or in the middle of another one that it shares its first steps with.

A world that is brought back to a place is proved to be there: by its state key after a snapshot, observation by
observation and reward by reward where the recorded actions are replayed. It is never silently another episode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from agentrl.divergence import Divergence, came_otherwise, shown_otherwise
from agentrl.errors import EnvironmentFault, InvalidDataError
from agentrl.protocols import Demands, HasDemands, RolloutStrategy
from agentrl.rollout.context import with_text, with_told
from agentrl.rollout.guard import GuardedWorld
from agentrl.types import JSON, Action, Observation, Source, Step, StepResult, Trajectory

NO_DEMANDS = Demands()

Arrival = Literal["reset", "restored", "replayed"]
"How a world came to the place where an episode begins."

_ADVICE = (
    "A strategy that forks needs an environment with `snapshot` and `restore`, or one that repeats itself: let it draw "
    'from random.Random(task.seed) only and read no clock (`agentrl env check` looks), or use strategy = "independent".'
)


@dataclass(frozen=True, slots=True)
class Start:
    """Where an episode begins, what its policy is told there, and what is kept of it."""

    shared: tuple[Step, ...] = ()
    "Steps of another trajectory that this one begins with, their rewards the environment's alone."
    shown: Observation | None = None
    "What is shown before the first step that is taken anew, `told` included; None at a plain beginning."
    snapshot: JSON = None
    "The environment's state at that moment, where it was kept."
    told: str = ""
    "Added to what is shown first; it trains. What the other trajectory was told there is part of it."
    given: str = ""
    "Shown as well, in every context of the episode; it does not train."
    source: Source = Source.POLICY
    demands: Demands = NO_DEMANDS
    line: tuple[Action, ...] = ()
    "An expert's actions, in place of the policy's."


def fork_of(parent: Trajectory, at: int, told: str, given: str, demands: Demands) -> Start:
    """Raises `InvalidDataError` where `parent` took no step `at`, or ended in a fault."""
    if not parent.status.trains or not 0 <= at < len(parent.steps):
        raise InvalidDataError(
            f"{parent.id} ended {parent.status.value} with {len(parent.steps)} steps and cannot be forked before step "
            f"{at}: fork trajectories whose `status.trains`, before one of their steps."
        )
    left = parent.steps[at]
    source = Source.GUIDED if given else Source.POLICY
    shown = replace(left.observation, messages=with_text(left.observation.messages, told))
    told = "\n\n".join(text for text in (left.told, told) if text)
    return Start(parent.steps[:at], shown, left.snapshot, told, given, source, demands)


def demands_of(strategy: RolloutStrategy) -> Demands:
    return strategy.demands if isinstance(strategy, HasDemands) else NO_DEMANDS


def orphaned(recorded: Mapping[int, Trajectory]) -> bool:
    """Whether a recorded fork begins with steps that no other recorded member holds, token for token.

    Those of an earlier group are nobody's here.
    """
    for trajectory in recorded.values():
        others = {step.id: step for other in recorded.values() if other is not trajectory for step in other.own}
        for step in trajectory.steps[: len(trajectory.steps) - len(trajectory.own)]:
            held = others.get(step.id)
            if not step.trains:
                continue
            if held is None or not np.array_equal(held.tokens, step.tokens):
                return True
    return False


async def arrive(world: GuardedWorld, start: Start) -> tuple[Observation, Arrival]:
    """Bring `world` to the beginning of the episode. Raises `EnvironmentFault` where it does not get there."""
    shown = await world.reset()
    if start.shown is None:
        return shown, "reset"
    arrival: Arrival = "reset"
    if start.shared and start.snapshot is not None and world.copies:
        await _restore(world, start)
        arrival = "restored"
    else:
        await _replay(world, start, shown)
        arrival = "replayed" if start.shared else "reset"
    return start.shown, arrival


async def _restore(world: GuardedWorld, start: Start) -> None:
    assert start.shown is not None
    restored, expected = await world.restore(start.snapshot), start.shown.state_key
    # What a restored world shows may be worded otherwise: the recorded observation is what the policy saw.
    if None not in (restored.state_key, expected) and restored.state_key != expected:
        raise EnvironmentFault(
            f"restore of a snapshot from before step {len(start.shared)} came to state {restored.state_key!r}; it was "
            f"taken in {expected!r}. Let `snapshot` hold all that `state_key` reads."
        )


async def _replay(world: GuardedWorld, start: Start, first: Observation) -> None:
    """Take the shared steps' actions again; everything that comes back must be what was recorded."""
    assert start.shown is not None
    awaited = [*((step.observation, step.told) for step in start.shared), (start.shown, start.told)]
    _check(shown_otherwise(0, awaited[0][0], with_told(first, awaited[0][1])))
    for step, (shown, told) in zip(start.shared, awaited[1:], strict=True):
        result = await world.step(step.action, step.observation, step.index)
        # First what is shown, which says most; scores are the log's.
        _check(shown_otherwise(step.index + 1, shown, with_told(result.observation, told)))
        went_on = StepResult(shown, step.reward, policy_error=step.error)
        _check(came_otherwise(step.index, went_on, result))


def _check(found: Divergence | None) -> None:
    if found is not None:
        raise EnvironmentFault(f"the environment is not deterministic at step {found.step}: {found}. {_ADVICE}")
