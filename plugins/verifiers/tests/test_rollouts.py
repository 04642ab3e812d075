"""Rollouts of verifiers in their virtual environment: their loop, turns and tools, our tokens, their reward."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from agentrl_verifiers.plugin import agentrl_environments
from agents_served import engine_of
from fakes_rollout import Engine, Renderer

from agentrl.errors import ConfigError
from agentrl.remote.pool import WORKERS
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.rollout.tokens import TokenPlayer
from agentrl.types import Action, Status, TokenIds, ToolCall, ToolSpec, Trajectory

OWN = agentrl_environments()["verifiers_rollouts"]
pytestmark = pytest.mark.skipif(not OWN.ready, reason="verifiers is not installed (agentrl env install verifiers)")
HERE = str(Path(__file__).parent)


class Calling(Renderer):
    """`@NAME {...}` is a call."""

    def parse(self, tokens: TokenIds, tools: Sequence[ToolSpec]) -> Action:
        text = self.decode(tokens)
        if not text.startswith("@"):
            return super().parse(tokens, tools)
        name, _, arguments = text[1:].partition(" ")
        return Action(tool_calls=(ToolCall(name, json.loads(arguments)),))


def make(taskset: str, path: str = HERE, **options: Any) -> Any:
    return OWN.factory("verifiers_rollouts")(taskset=taskset, path=path, **options)


async def played(
    engine: Engine, taskset: str, *, path: str = HERE, max_steps: int | None = None, **options: Any
) -> Trajectory:
    """The first task of it."""

    def world() -> Any:
        return make(taskset, path, **options)

    limits = EpisodeLimits(max_tokens=64, max_steps=max_steps)
    supervision = Supervision(attempts=1, failure_bound=1.0)
    async with RolloutEngine(world, TokenPlayer(engine, Calling()), limits=limits, supervision=supervision) as rollout:
        return await rollout.episode(next(iter(world().tasks("train"))), 0)


def check_tokens(trajectory: Trajectory, engine: Engine) -> None:
    """What was recorded is what the engine was given and returned."""
    assert len(engine.requests) == len(trajectory.steps)
    for step, request, sampled in zip(trajectory.steps, engine.requests, engine.completions, strict=True):
        assert trajectory.tokens_through(step).tolist() == [*request.tokens.tolist(), *sampled.tolist()]
    assert [step.context for step in trajectory.steps] == [None, *(step.id for step in trajectory.steps[:-1])]


@pytest.fixture(autouse=True, scope="module")
def _no_workers_stay() -> Iterator[None]:
    yield
    WORKERS.close()


async def test_a_rollout_with_tools_is_recorded_token_for_token_with_its_own_reward() -> None:
    engine = engine_of('@counter_add {"number": 2}', '@counter_add {"number": 1}', "done")
    trajectory = await played(engine, "counter_taskset", wins_at=1.0)
    assert (trajectory.status, trajectory.error, trajectory.forks) == (Status.OK, "", 0)
    assert [step.observation.messages[-1].content for step in trajectory.steps] == [
        "Bring the counter to 3 and say the number.",
        "the counter is at 2",
        "the counter is at 3",
    ]
    # Both of their rewards: the counter is there, the number was not said.
    assert trajectory.reward == 1.0 and trajectory.success
    assert trajectory.steps[-1].scores == {"reached": 1.0, "said": 0.0, "success": 1.0}
    check_tokens(trajectory, engine)


async def test_rollouts_after_one_another_share_a_tool_server_and_no_state() -> None:
    """The recipe's taskset: a key one room to the north."""
    path = str(Path(__file__).parents[1] / "recipes")
    for _ in range(2):
        engine = engine_of('@go {"direction": "north"}', "@take {}", "@open {}", "that is it")
        trajectory = await played(engine, "keys_taskset", path=path)
        assert [step.observation.messages[-1].content for step in trajectory.steps] == [
            "key north",
            "key here",
            "door north",
            "door north",
        ]
        assert (trajectory.status, trajectory.reward, trajectory.forks) == (Status.OK, 0.0, 0)
        check_tokens(trajectory, engine)


async def test_a_conversation_of_theirs_ends_where_the_policys_steps_do_and_is_scored_by_them() -> None:
    engine = engine_of("5", "3")
    trajectory = await played(engine, "guess_taskset", max_steps=2)
    assert [step.observation.messages[-1].content for step in trajectory.steps] == [
        "Guess a number from 1 to 9.",
        "lower",
    ]
    assert (trajectory.status, trajectory.error, trajectory.reward) == (Status.TRUNCATED, "", 0.0)
    assert trajectory.steps[-1].scores["guesses"] == 2.0
    check_tokens(trajectory, engine)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"env": {"agent": {"harness": {"id": "bash"}}}}, "whose harness 'bash' runs what the policy writes"),
        ({"env": {"agent": {"harness": {"id": "no_such"}}}}, "no_such"),
        ({"env": {"agents": {}}}, "cannot be loaded"),
    ],
)
def test_what_cannot_be_started_is_said(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make("counter_taskset", **options)
