"""An episode of given actions, for a test that says what they do.

Nothing is judged here: what the world raises, the test sees.
"""

from __future__ import annotations

from collections.abc import Iterable

from agentrl.environment import Env, adapt
from agentrl.types import Action, StepResult, Task


async def play(env: Env, task: Task, actions: Iterable[Action] | None = None) -> list[StepResult]:
    """What each of `actions` gave, until the episode is over or they run dry; the oracle's where none are given."""
    world = adapt(env)
    await world.reset(task)
    results: list[StepResult] = []
    for action in env.oracle(task) if actions is None else actions:
        results.append(await world.step(action))
        if results[-1].terminated or results[-1].truncated:
            break
    await world.close()
    return results
