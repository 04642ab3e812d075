"""The environment's own solution of a task, played to its end, as guidance for the policy.

It makes no record and trains nobody: only the actions are given back.
"""

from __future__ import annotations

from agentrl.errors import ConfigError
from agentrl.protocols import Environment, HasOracle
from agentrl.rollout.guard import GuardedWorld
from agentrl.rollout.limits import EpisodeLimits
from agentrl.types import Action, Task


async def winning_line(environment: Environment, task: Task, limits: EpisodeLimits) -> tuple[Action, ...]:
    """The oracle's actions up to the end of the episode; `environment` stays the caller's to close.

    Raises `ConfigError` where there is no oracle, `EnvironmentFault` where the environment or its oracle fails.
    """
    if not isinstance(environment, HasOracle):
        raise ConfigError(
            f"the environment of task {task.id!r} has no oracle to be guided by. Give it an `oracle`, or use a "
            "strategy without guidance."
        )
    world = GuardedWorld(environment, task, limits, lambda stage: None)
    shown = await world.reset()
    line: list[Action] = []
    for action in environment.oracle(task):
        result = await world.step(action, shown, len(line))
        line.append(action)
        if result.terminated or result.truncated or len(line) >= world.max_steps:
            break
        shown = result.observation
    return tuple(line)
