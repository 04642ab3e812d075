"""The driver's side of a rollout of verifiers: what it tells the world, hands on, and leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from agentrl_verifiers.agent import Agents, VerifiersRollouts

from agentrl import Action, Ending, EnvironmentFault, Observation, StepResult, Task

TASK = Task("t", "verifiers_rollouts")


class World:
    """A world in another process, as far as the driver calls it; `act` is its one step."""

    def __init__(self, act: Callable[[str], Awaitable[StepResult]]) -> None:
        self._act = act
        self.calls: list[str] = []

    async def reset(self, task: Task) -> None:
        self.calls.append(f"reset {task.id}")

    async def step(self, action: Action) -> StepResult:
        self.calls.append(f"step {action.text}")
        result = await self._act(action.text)
        self.calls.append("ended")
        return result

    async def close(self) -> None:
        self.calls.append("close")


def agent_of(world: World) -> VerifiersRollouts:
    return VerifiersRollouts(lambda: world)


async def test_the_world_is_told_the_address_and_its_reward_and_scores_are_the_episodes() -> None:
    async def act(url: str) -> StepResult:
        return StepResult(Observation(()), 0.75, terminated=True, scores={"exact": 1.0})

    world = World(act)
    assert await agent_of(world).play(TASK, "http://here/v1") == Ending(0.75, scores={"exact": 1.0})
    assert world.calls == ["reset t", "step http://here/v1", "ended", "close"]


async def test_a_rollout_that_fails_is_a_fault_and_its_world_is_closed() -> None:
    async def act(url: str) -> StepResult:
        raise EnvironmentFault("their rollout failed: ToolsetError: no port")

    world = World(act)
    with pytest.raises(EnvironmentFault, match="ToolsetError"):
        await agent_of(world).play(TASK, "")
    assert world.calls[-1] == "close"


async def test_a_rollout_that_is_called_off_may_clear_up_before_its_world_is_closed() -> None:
    begun, refused = asyncio.Event(), asyncio.Event()

    async def act(url: str) -> StepResult:
        begun.set()
        await refused.wait()
        return StepResult(Observation(()), 0.0, terminated=True)

    world = World(act)
    playing = asyncio.create_task(agent_of(world).play(TASK, ""))
    await begun.wait()
    playing.cancel()
    await asyncio.sleep(0)
    refused.set()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert world.calls[-2:] == ["ended", "close"]


def test_options_are_the_worlds() -> None:
    def theirs(*, taskset: str, wins_at: float = 1.0) -> Any:
        return taskset, wins_at

    agents = Agents(theirs)
    assert list(agents.__signature__.parameters) == ["taskset", "wins_at"]
    with pytest.raises(TypeError, match="taskset"):
        agents()
