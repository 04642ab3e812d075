"""keydoor: the layouts, the rules, and what the splits share."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from functools import partial
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keydoor.env import KeyDoor
from keydoor.world import DIRECTIONS, Layout, World

from agentrl import Action, Task, call, say
from agentrl.environment import adapt
from agentrl.testing import assert_environment, play

HARD: dict[str, Any] = {"walls": True, "hints": False, "size": 5, "horizon": 30}


def act(world: World, number: int) -> None:
    if number < 4:
        world.go(DIRECTIONS[number])
    else:
        world.take() if number == 4 else world.open()


async def test_oracle_wins_in_the_shortest_number_of_actions() -> None:
    for options in ({}, HARD):
        for split in ("train", "test"):
            for task in islice(KeyDoor(**options).tasks(split), 50):
                env = KeyDoor(**options)
                results = await play(env, task)
                assert results[-1].terminated and not results[-1].truncated
                assert sum(result.reward for result in results) == 1.0
                assert results[-1].scores == {"success": 1.0, "length": float(env.world.layout.shortest)}


async def test_cheats_never_win() -> None:
    for task in islice(KeyDoor().tasks("train"), 50):
        env = KeyDoor()
        names = list(env.cheats(task))
        assert len(names) == 4
        for name in names:
            results = await play(env, task, env.cheats(task)[name])
            assert sum(result.reward for result in results) == 0.0, name


async def test_demonstrator_wins_now_and_then() -> None:
    rng, wins = random.Random(0), 0.0
    for task in islice(KeyDoor().tasks("train"), 300):
        env = KeyDoor()
        wins += sum(result.reward for result in await play(env, task, env.demonstrate(task, rng)))
    assert 0.04 <= wins / 300 <= 0.13


async def test_a_skilled_demonstrator_still_takes_and_opens_by_chance() -> None:
    env = KeyDoor(skill=1.0, horizon=64)
    task = next(env.tasks("train"))
    lengths = []
    for seed in range(60):
        results = await play(env, task, env.demonstrate(task, random.Random(seed)))
        lengths.append(len(results))
    assert env.world.layout.shortest < sum(lengths) / 60 < env.world.layout.shortest + 24


def test_splits_share_no_seed_and_no_layout() -> None:
    env = KeyDoor()
    test, train = list(env.tasks("test")), list(islice(env.tasks("train"), 3000))
    assert len(test) == 512 and len({task.id for task in [*test, *train]}) == 3512
    assert {task.seed for task in test}.isdisjoint(task.seed for task in train)

    def layouts(tasks: list[Task]) -> set[Layout]:
        return {Layout.from_seed(task.data["layout"], 4, False) for task in tasks}

    assert len(layouts(test)) == 512
    assert layouts(test).isdisjoint(layouts(train))


def test_a_small_world_has_all_its_held_out_layouts_as_test() -> None:
    tasks = list(KeyDoor(size=3, horizon=12).tasks("test"))
    every = [Layout(3, a, b, c) for a in range(9) for b in range(9) for c in range(9) if len({a, b, c}) == 3]
    assert len(tasks) == sum(layout.held_out for layout in every)


def test_tasks_are_the_same_each_time_and_json() -> None:
    first, second = (list(islice(KeyDoor().tasks("train"), 50)) for _ in range(2))
    assert first == second
    assert [json.loads(json.dumps(task.data)) for task in first] == [task.data for task in first]


async def test_same_task_same_episode() -> None:
    task = next(KeyDoor(**HARD).tasks("train"))
    assert await play(KeyDoor(**HARD), task) == await play(KeyDoor(**HARD), task)


def test_hints_point_to_the_key_then_to_the_door() -> None:
    world = World(Layout(4, start=5, key=2, door=4))
    assert world.describe() == "key north east"
    world.go("north")
    assert world.describe() == "key east"
    world.go("east")
    assert world.describe() == "key here"
    world.take()
    assert world.describe() == "door south west"
    for way in ("south", "west", "west"):
        world.go(way)
    assert world.describe() == "door here"
    world.open()
    assert world.opened and world.describe() == "door open" and world.actions == 7


def test_without_hints_only_walls_and_the_room_itself_are_seen() -> None:
    assert World(Layout(4, start=0, key=2, door=4)).describe(hints=False) == "key wall north west"
    assert World(Layout(4, start=5, key=2, door=4)).describe(hints=False) == "key"


def test_door_stays_shut_without_the_key_and_key_is_taken_only_where_it_lies() -> None:
    world = World(Layout(3, start=0, key=1, door=2))
    world.take()
    world.open()
    assert not world.holding
    world.room = 2
    world.open()
    assert not world.opened
    world.room = 1
    world.take()
    assert world.holding


@given(seed=st.integers(0, 10_000), size=st.integers(3, 8))
@settings(max_examples=60, deadline=None)
def test_walls_cut_no_room_off_and_block_both_ways(seed: int, size: int) -> None:
    layout = Layout.from_seed(seed, size, walls=True)
    assert len(layout.distances(layout.start)) == size * size  # raises KeyError where a room is cut off
    for room in range(size * size):
        for way, back in zip(DIRECTIONS, DIRECTIONS[2:] + DIRECTIONS[:2], strict=True):
            other = layout.neighbor(room, way)
            assert other == room or layout.neighbor(other, back) == room
    open_world = Layout.from_seed(seed, size, walls=False)
    assert (layout.start, layout.key, layout.door) == (open_world.start, open_world.key, open_world.door)
    assert layout.shortest >= open_world.shortest


@given(seed=st.integers(0, 10_000), walls=st.booleans(), numbers=st.lists(st.integers(0, 5), max_size=40))
@settings(max_examples=60, deadline=None)
def test_state_key_changes_exactly_when_the_state_does(seed: int, walls: bool, numbers: list[int]) -> None:
    world = World(Layout.from_seed(seed, 4, walls))
    keys: dict[str, tuple[int, bool, bool]] = {}
    for number in numbers:
        keys.setdefault(world.key_of_state(), (world.room, world.holding, world.opened))
        act(world, number)
        assert keys.get(world.key_of_state(), (world.room, world.holding, world.opened)) == (
            world.room,
            world.holding,
            world.opened,
        )
    assert len(set(keys.values())) == len(keys)


@given(seed=st.integers(0, 10_000), walls=st.booleans(), numbers=st.lists(st.integers(0, 5), max_size=30))
@settings(max_examples=40, deadline=None)
def test_snapshot_is_exact_and_shares_nothing(seed: int, walls: bool, numbers: list[int]) -> None:
    world = World(Layout.from_seed(seed, 4, walls))
    for number in numbers:
        act(world, number)
    copy = World.from_snapshot(json.loads(json.dumps(world.snapshot())))
    assert copy == world and copy.key_of_state() == world.key_of_state()
    before = world.snapshot()
    for number in reversed(numbers):
        act(copy, number)
    assert world.snapshot() == before


async def test_a_restored_episode_goes_on_as_the_first_one() -> None:
    task = next(KeyDoor(**HARD).tasks("train"))
    line = list(await _oracle_actions(task))
    first, second = adapt(KeyDoor(**HARD)), adapt(KeyDoor(**HARD))
    await first.reset(task)
    for action in line[:3]:
        seen = await first.step(action)
    shown = await second.restore(await first.snapshot())  # type: ignore[attr-defined]
    assert shown.state_key == seen.observation.state_key
    assert shown.messages[-1].content == seen.observation.messages[-1].content
    for action in line[3:]:
        assert await first.step(action) == await second.step(action)


async def _oracle_actions(task: Task) -> list[Action]:
    env = KeyDoor(**HARD)
    taken: list[Action] = []

    def recorded() -> Iterable[Action]:
        for action in env.oracle(task):
            taken.append(action)
            yield action

    await play(env, task, recorded())
    return taken


async def test_words_cost_an_action_and_end_nothing() -> None:
    env = KeyDoor(horizon=8)
    task = next(env.tasks("train"))
    results = await play(env, task, (say("north please") for _ in range(20)))
    assert len(results) == 8 and results[-1].truncated
    assert results[-1].scores == {"success": 0.0, "length": 8.0}


async def test_many_calls_in_one_answer_do_not_stretch_the_horizon() -> None:
    env = KeyDoor(horizon=8)
    task = next(env.tasks("train"))
    spree = Action(tool_calls=tuple(call("go", direction="north").tool_calls[0] for _ in range(40)))
    results = await play(env, task, [spree])
    assert results[-1].terminated and "all 8 actions are used" in results[-1].policy_error
    assert results[-1].scores == {"success": 0.0, "length": 8.0}


async def test_a_wrong_direction_is_the_models_mistake() -> None:
    env = KeyDoor()
    task = next(env.tasks("train"))
    (result,) = await play(env, task, [call("go", direction="up")])
    assert "direction" in result.policy_error and result.observation.state_key == env.state_key()


@pytest.mark.parametrize("options", [{"size": 2}, {"size": 13}, {"horizon": 7}, {"skill": 1.5}])
def test_bad_options_are_refused_with_the_value(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} is {next(iter(options.values()))}"):
        KeyDoor(**options)


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="'train' and 'test'"):
        next(KeyDoor().tasks("dev"))


@pytest.mark.parametrize("options", [{}, HARD])
def test_the_shipped_check_finds_it_sound(options: dict[str, Any]) -> None:
    assert_environment(partial(KeyDoor, **options), tasks=4)
