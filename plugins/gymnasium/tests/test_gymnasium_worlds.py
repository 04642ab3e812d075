"""Gymnasium worlds in words: the shipped check passes, oracles win, and nothing is made up."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

pytest.importorskip("minigrid", reason="minigrid is not installed (pip install 'agentrl-gymnasium[minigrid]')")

from agentrl_gymnasium.environment import GymnasiumText
from agentrl_gymnasium.minigrid import MiniGridText, told_view
from agentrl_gymnasium.oracle import best_actions
from agentrl_gymnasium.words import first_words, in_words, plain_terminal
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX

from agentrl.environment import adapt, call
from agentrl.testing import assert_environment
from agentrl.types import Task


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (GymnasiumText, {}),
        (GymnasiumText, {"options": {"is_slippery": False}}),
        (MiniGridText, {"id": "BabyAI-GoToObj-v0"}),
        (MiniGridText, {"id": "BabyAI-UnlockLocal-v0", "max_steps": 24}),
    ],
)
def test_the_worlds_pass_the_check(make: type[GymnasiumText], options: dict[str, object]) -> None:
    assert_environment(lambda: make(**options), tasks=2)  # type: ignore[arg-type]


async def won(world: GymnasiumText, seed: int) -> tuple[bool, int]:
    environment = adapt(world)
    task = Task("t", world.id, seed)
    await environment.reset(task)
    steps = 0
    for action in world.oracle(task):
        result = await environment.step(action)
        steps += 1
        if result.terminated or result.truncated:
            return result.scores["success"] == 1.0, steps
    return False, steps


async def test_a_search_wins_a_locked_room() -> None:
    """Key, door and goal: by the shortest way, so never longer than the room's own bound."""
    for seed in range(2):
        success, steps = await won(MiniGridText(id="MiniGrid-DoorKey-5x5-v0", max_steps=40), seed)
        assert success and 5 <= steps <= 30


async def test_the_table_wins_the_cliff_in_thirteen_steps() -> None:
    assert await won(GymnasiumText(id="CliffWalking-v1", wins_above=-14.0), 0) == (True, 13)


def test_where_chance_moves_only_the_oracle_sees_what_it_will_bring() -> None:
    world = GymnasiumText()
    task = Task("t", world.id, 3)
    world.reset(task)
    lucky = [action.tool_calls[0].arguments["action"] for action in world.oracle(task)]
    assert len(lucky) == 6
    fair = world.demonstrate(task, random.Random(0))
    assert next(iter(fair)).tool_calls[0].arguments["action"] == "left"
    for action in lucky:
        world.act(action)
    assert world.scores()["success"] == 1.0


def test_value_iteration_prefers_the_sure_way() -> None:
    """From state 0: action 0 gains 1 at once, action 1 gains 3 with probability 0.5, else nothing."""
    table = {
        0: {0: [(1.0, 1, 1.0, True)], 1: [(0.5, 1, 3.0, True), (0.5, 1, 0.0, True)]},
        1: {0: [(1.0, 1, 0.0, True)], 1: [(1.0, 1, 0.0, True)]},
    }
    assert best_actions(table)[0] == 1
    table[0][1] = [(0.3, 1, 3.0, True), (0.7, 1, 0.0, True)]
    assert best_actions(table)[0] == 0


async def test_a_snapshot_leads_to_the_same_place_in_another_instance() -> None:
    task = Task("t", "FrozenLake-v1", 3)
    first, second = GymnasiumText(), GymnasiumText()
    near, far = adapt(first), adapt(second)
    await near.reset(task)
    for name in ("down", "down", "right"):
        last = await near.step(call("act", action=name))
    kept = json.loads(json.dumps(await near.snapshot()))  # type: ignore[attr-defined]
    await far.reset(task)
    await far.restore(kept)  # type: ignore[attr-defined]
    assert first.state_key() == second.state_key() and first.look() == second.look()
    a, b = [await world.step(call("act", action="down")) for world in (near, far)]
    assert a.observation == b.observation and a.reward == b.reward and last.reward == 0.0


async def test_a_wrong_name_is_told_and_costs_no_action() -> None:
    world = GymnasiumText()
    environment = adapt(world)
    await environment.reset(Task("t", world.id, 0))
    result = await environment.step(call("act", action="fly"))
    assert "there is no action 'fly'. Actions: left, down, right, up" in result.policy_error
    assert world.snapshot()["played"] == []


def test_the_view_is_told_from_where_the_agent_stands() -> None:
    view = np.zeros((7, 7, 3), np.uint8)
    view[:, :, 0] = OBJECT_TO_IDX["empty"]
    view[3, 0, 0] = OBJECT_TO_IDX["wall"]
    view[2, 4] = (OBJECT_TO_IDX["ball"], COLOR_TO_IDX["red"], 0)
    view[5, 6] = (OBJECT_TO_IDX["door"], COLOR_TO_IDX["blue"], 2)
    assert told_view(view).splitlines() == [
        "You see a locked blue door 2 to the right.",
        "You see a red ball 2 ahead and 1 to the left.",
        "A wall is 6 ahead.",
    ]


def test_colour_becomes_brackets_and_images_are_refused() -> None:
    assert plain_terminal("\n\x1b[41mS\x1b[0mFF\nFHF\n") == "[S]FF\nFHF"
    assert (
        in_words({"sum": 14, "cards": (10, np.float32(0.5)), "ace": np.array([1, 0])})
        == "sum: 14\ncards: 10, 0.5\nace: 1 0"
    )
    with pytest.raises(ValueError, match="an array of 7x7x3 numbers; at most 64"):
        in_words(np.zeros((7, 7, 3)))


def test_a_prompt_says_what_the_world_is_about() -> None:
    assert "from start to goal without falling into any holes" in GymnasiumText().system
    assert GymnasiumText().system.endswith("The actions are: left, down, right, up.")
    assert first_words("## Description\n\nA car\non a [hill](http://x).\n\n## Actions") == "A car on a hill."
    assert first_words(None) == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"id": "FrozenLak-v1"}, "Did you mean: `FrozenLake`"),
        ({"options": {"slippery": False}}, "has id 'FrozenLake-v1' and options .* no world can be made"),
        ({"id": "Pendulum-v1"}, "only Discrete ones have names"),
        ({"actions": ["left", "left", "right", "up"]}, "name each once"),
    ],
)
def test_worlds_and_names_that_do_not_fit_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GymnasiumText(**options)  # type: ignore[arg-type]
