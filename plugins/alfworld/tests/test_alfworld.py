"""ALFWorld: its planner wins all six kinds in rooms never trained in, and an official folder keeps its splits."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import subprocess
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from agentrl_alfworld.official import official, root_of
from agentrl_alfworld.plugin import WORLD, suite

from agentrl import EnvironmentFault, call, say
from agentrl.options import check_options
from agentrl.plugins import load_host
from agentrl.testing import assert_environment

real = pytest.mark.skipif(not WORLD.ready, reason="ALFWorld is not installed: agentrl env install alfworld (minutes)")
KINDS = (
    *("pick_and_place_simple", "look_at_obj_in_light", "pick_clean_then_place_in_recep"),
    *("pick_heat_then_place_in_recep", "pick_cool_then_place_in_recep", "pick_two_obj_and_place"),
)
WRITER = """
import json, pathlib, sys
from agentrl_alfworld import household
for split, room in (("train", 9), ("valid_seen", 9), ("valid_unseen", 2)):
    folder = pathlib.Path(sys.argv[1]) / "json_2.1.1" / split / "pick_heat" / "trial_1"
    folder.mkdir(parents=True)
    game, _ = household.game(room, "pick_heat_then_place_in_recep", len(split), places=8, clutter=4)
    (folder / "game.tw-pddl").write_text(json.dumps({**game, "solvable": True, "walkthrough": []}))
    (folder / "traj_data.json").write_text(json.dumps({"task_type": "pick_heat_then_place_in_recep"}))
"""


def factory(**options: object) -> Callable[[], Any]:
    made = load_host().factory("environments", "alfworld")
    return functools.partial(made, **options) if options else made


def put(root: Path, place: str, kind: str, **game: object) -> None:
    folder = root / place
    folder.mkdir(parents=True)
    (folder / "traj_data.json").write_text(json.dumps({"task_type": kind}))
    (folder / "game.tw-pddl").write_text(json.dumps(game))


def test_of_an_official_folder_the_solvable_games_of_the_kinds_are_played_by_name(tmp_path: Path) -> None:
    root = tmp_path / "json_2.1.1"
    put(root, "train/b/trial_2", KINDS[0], solvable=True)
    put(root, "train/a/trial_1", KINDS[1], solvable=True)
    put(root, "train/c/trial_1", KINDS[0], solvable=False)
    put(root, "train/movable-d/trial_1", KINDS[0], solvable=True)
    put(root, "train/AppleSliced-e/trial_1", KINDS[0], solvable=True)
    put(root, "valid_seen/f/trial_1", KINDS[2], solvable=True)
    put(root, "valid_unseen/g/trial_1", KINDS[3])
    assert root_of(str(tmp_path)) == root_of(str(root)) == root
    found = [(game.name, game.kind) for game in official(root, "train", KINDS)]
    assert found == [("a/trial_1", KINDS[1]), ("b/trial_2", KINDS[0])]
    assert [game.name for game in official(root, "train", KINDS[:1])] == ["b/trial_2"]
    with pytest.raises(ValueError, match="holds no solvable game of the kinds"):
        list(official(root, "valid_unseen", KINDS))
    (root / "train/a/trial_1/traj_data.json").write_text("{")
    with pytest.raises(ValueError, match="a/trial_1 is no game of ALFWorld"):
        list(official(root, "train", KINDS))
    with pytest.raises(ValueError, match="`alfworld-download` fetches"):
        root_of(str(tmp_path / "nowhere"))


@real
@pytest.mark.slow
async def test_the_planner_wins_every_kind_in_rooms_that_nothing_is_trained_in() -> None:
    world = factory()()
    try:
        tasks = list(islice(world.tasks("valid_unseen"), 6))
        assert tuple(task.tags[0] for task in tasks) == KINDS
        assert all(task.data["room"] % 100 <= 6 for task in tasks)
        for task in tasks:
            shown = (await world.reset(task)).messages[-1].content
            assert shown.startswith("You are in the middle of a room.") and "Your task is to:" in shown
            result = None
            for action in world.oracle(task):
                assert result is None or (result.reward == 0.0 and not result.terminated)
                assert action.tool_calls[0].arguments["command"] in shown, "the planner says only what can be done"
                result = await world.step(action)
                shown = result.observation.messages[0].content
            assert result is not None and result.terminated and result.reward == 1.0, task.id
    finally:
        await world.close()


@real
def test_splits_share_no_task_and_unseen_rooms_no_room() -> None:
    world = factory()()
    train = list(islice(world.tasks("train"), 512))
    seen, unseen = list(world.tasks("valid_seen")), list(world.tasks("valid_unseen"))
    assert len(seen) == len(unseen) == 512 and len({task.id for task in (*train, *seen, *unseen)}) == 1536
    trained = {task.data["room"] for task in train}
    assert {task.data["room"] for task in seen} <= trained and not trained & {task.data["room"] for task in unseen}
    assert {(task.data["room"], task.data["kind"], task.data["seed"]) for task in train}.isdisjoint(
        (task.data["room"], task.data["kind"], task.data["seed"]) for task in seen
    )
    assert [task.data for task in world.tasks("test")] == [task.data for task in unseen]


@real
@pytest.mark.slow
def test_the_environment_passes_the_check() -> None:
    assert_environment(factory(max_steps=14, places=5, clutter=3), tasks=1)


@real
async def test_mistakes_change_nothing_and_back_is_the_same_state() -> None:
    world, other = factory(admissible=False)(), factory(admissible=False)()
    task = next(iter(world.tasks("test")))
    try:
        first = await world.reset(task)
        assert "Commands:" not in first.messages[-1].content
        wrong = await world.step(call("act", command="fly to the moon"))
        assert wrong.observation.messages[0].content == "Nothing happens."
        assert wrong.observation.state_key == first.state_key and wrong.reward == 0.0
        spoken = await world.step(say("go to fridge 1"))
        assert spoken.observation.state_key == first.state_key and not spoken.terminated
        start, onward, *_ = list(world.oracle(task))
        await world.step(start)
        saved = await world.snapshot()
        ahead = await world.step(onward)
        assert ahead.observation.state_key != saved["world"]["key"]
        for place in (world, other):
            assert (await place.restore(saved)).state_key == saved["world"]["key"]
            assert (await place.step(onward)).observation == ahead.observation
    finally:
        await world.close()
        await other.close()


def written(folder: Path) -> str:
    """A game of each split, as ALFWorld lays them out, made in its own interpreter."""
    command = [str(WORLD.folder / "bin" / "python"), "-c", WRITER, str(folder)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])})
    return str(folder)


@real
async def test_an_official_folder_is_played_by_its_splits_and_a_broken_game_is_a_fault(tmp_path: Path) -> None:
    world = factory(data=await asyncio.to_thread(written, tmp_path))()
    try:
        for split in ("train", "valid_seen", "test"):
            (task,) = list(world.tasks(split))
            part = "valid_unseen" if split == "test" else split
            assert task.id == f"{part}/pick_heat/trial_1" and task.tags == (KINDS[3],)
            await world.reset(task)
            for action in world.oracle(task):
                result = await world.step(action)
            assert result.terminated and result.reward == 1.0
        file = tmp_path / "json_2.1.1" / "train" / "pick_heat" / "trial_1" / "game.tw-pddl"
        (task,) = list(world.tasks("train"))
        file.write_text(json.dumps({**json.loads(file.read_text()), "pddl_problem": "(define"}))
        with pytest.raises(EnvironmentFault, match=r"AlfWorld\.reset"):
            await world.reset(task)
    finally:
        await world.close()


@real
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kinds": ["pick_heat"]}, "has no kind 'pick_heat'"),
        ({"places": 2}, "places is 2"),
        ({"data": "/nowhere"}, "alfworld-download"),
    ],
)
def test_bad_options_are_refused_in_words(options: dict[str, object], words: str) -> None:
    with pytest.raises(Exception, match=words):
        factory(**options)()


def test_the_suite_has_the_two_held_out_splits() -> None:
    (said,) = check_options(suite, {"split": "valid"}).problems
    assert said.endswith("must be one of 'valid_seen' or 'valid_unseen'.")
