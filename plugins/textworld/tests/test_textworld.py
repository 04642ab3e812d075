"""TextWorld's games: those in the box are won by their own policy, folders are games, and back is back exactly."""

from __future__ import annotations

import functools
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agentrl_textworld.games import BOX, games_in
from agentrl_textworld.plugin import WORLD
from agentrl_textworld.words import feedback_of, refusal

from agentrl import EnvironmentFault, Task, call, say
from agentrl.plugins import load_host
from agentrl.testing import assert_environment

real = pytest.mark.skipif(not WORLD.ready, reason="TextWorld is not installed: agentrl env install textworld")


def factory(**options: object) -> Callable[[], Any]:
    made = load_host().factory("environments", "textworld")
    return functools.partial(made, **options) if options else made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three games of the box in one folder."""
    with tarfile.open(BOX) as archive:
        archive.extractall(tmp_path / "all", filter="data")
    (tmp_path / "flat").mkdir()
    for seed in (3, 4, 6):
        for ending in ("z8", "json"):
            shutil.copy(tmp_path / "all" / "train" / f"house-{seed}.{ending}", tmp_path / "flat")
    return tmp_path / "flat"


def test_the_box_has_games_to_train_on_and_others_held_out() -> None:
    box = games_in("")
    assert box.of("train") == tuple(f"train/house-{seed}" for seed in range(1, 9))
    assert box.of("test") == tuple(f"test/house-{seed}" for seed in range(101, 105))
    with pytest.raises(ValueError, match="no split 'valid'"):
        box.of("valid")


def test_a_folder_is_split_by_its_folders_or_by_name(folder: Path) -> None:
    assert (games_in(str(folder)).train, games_in(str(folder)).test) == (("house-3", "house-4"), ("house-6",))
    apart = games_in(str(folder.parent / "all"))
    assert apart.folder is not None and apart.test == games_in("").test and apart.train == games_in("").train


def test_a_folder_without_what_is_needed_is_refused_in_words(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="that is no folder"):
        games_in(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has 0 games to train on and 0 held out"):
        games_in(str(tmp_path / "empty"))
    (folder / "house-3.json").unlink()
    with pytest.raises(ValueError, match=r"house-3\.z8 has no \.json file beside it"):
        games_in(str(folder))


@pytest.mark.parametrize("command", ["", "quit", "RESTART", "tw-trace-actions", "go east. go west", "a\nb", "x then y"])
def test_what_is_no_single_command_of_the_game_is_refused(command: str) -> None:
    assert refusal(command) and not refusal("put the knife on the shelf")


def test_what_is_printed_for_a_terminal_is_left_out() -> None:
    end = "\nYou drop it.\n\n\nYour score has just gone up.\n\n  *** The End ***\n"
    end += "\nWould you like to RESTART?\n> -= Study =-0/4"
    assert feedback_of(end) == "You drop it.\nYour score has just gone up.\n  *** The End ***"
    assert feedback_of("\n\n-= Study =-\nA study.\n\n\n>        -= Study =-0/2") == "-= Study =-\nA study."


@real
async def test_every_game_in_the_box_is_won_by_its_own_policy_and_all_reward_is_one() -> None:
    world = factory()()
    try:
        for task in (*world.tasks("train"), *world.tasks("test")):
            await world.reset(task)
            rewards, result = [], None
            for action in world.oracle(task):
                result = await world.step(action)
                rewards.append(result.reward)
            assert result is not None and result.terminated and result.scores["success"] == 1.0, task.id
            assert sum(rewards) == pytest.approx(1.0) and rewards[-1] > 0, task.id
    finally:
        await world.close()


@real
@pytest.mark.slow
def test_the_environment_passes_the_check() -> None:
    assert_environment(factory(), tasks=1)


@real
async def test_the_model_is_told_what_it_can_do_and_what_it_did_wrong() -> None:
    world, bare = factory()(), factory(admissible=False)()
    task = Task("textworld-train/house-5", "textworld", 0, {"game": "train/house-5"})
    try:
        text = (await world.reset(task)).messages[-1].content
        assert "place the knife on the floor of the study" in text and "\n-= Study =-\n" in text
        assert "\nCommands: drop insect; examine bookshelf" in text and "$$" not in text and ">" not in text
        assert "Commands:" not in (await bare.reset(task)).messages[-1].content
        refused = await world.step(call("act", command="restart"))
        assert refused.policy_error == "'restart' is no command of the game."
        unknown = await world.step(call("act", command="dance"))
        assert unknown.reward == 0.0 and unknown.observation.messages[0].content.startswith("That's not a verb")
        spoken = await world.step(say("go north"))
        assert not spoken.terminated and "call `act`" in spoken.observation.messages[0].content
    finally:
        await world.close()
        await bare.close()


@real
async def test_back_is_the_same_state_here_and_elsewhere() -> None:
    world, other = factory()(), factory()()
    task = next(iter(world.tasks("test")))
    try:
        await world.reset(task)
        first, second, *_ = world.oracle(task)
        await world.step(first)
        saved = await world.snapshot()
        onward = await world.step(second)
        assert onward.observation.state_key != saved["world"]["key"]
        for place in (world, other):
            assert (await place.restore(saved)).state_key == saved["world"]["key"]
            again = await place.step(second)
            assert again.observation == onward.observation
        saved["world"]["key"] = "another"
        with pytest.raises(EnvironmentFault, match="played again lead elsewhere"):
            await other.restore(saved)
    finally:
        await world.close()
        await other.close()


@real
async def test_a_broken_game_is_a_fault_with_its_file(folder: Path) -> None:
    (folder / "house-3.json").write_text("{")
    world = factory(games=str(folder))()
    try:
        with pytest.raises(EnvironmentFault, match=r"cannot start .*house-3\.z8"):
            await world.reset(next(iter(world.tasks("train"))))
        played = await world.reset(next(iter(world.tasks("test"))))
        assert "Commands:" in played.messages[-1].content
    finally:
        await world.close()


@real
@pytest.mark.slow
def test_the_command_makes_the_same_games_again_and_keeps_what_is_there(tmp_path: Path) -> None:
    from agentrl_textworld.command import app
    from typer.testing import CliRunner

    asked = ["make", str(tmp_path / "games"), "--train", "1", "--test", "1", "--rooms", "1", "--length", "1"]
    made = CliRunner().invoke(app, asked)
    assert made.exit_code == 0, made.output
    assert (games_in(str(tmp_path / "games")).train, games_in(str(tmp_path / "games")).test) == (
        ("train/house-0",),
        ("test/house-1",),
    )
    again = CliRunner().invoke(app, asked)
    assert again.output.count("there already") == 2
