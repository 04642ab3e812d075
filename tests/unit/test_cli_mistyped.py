"""What a mistyped word of a command line is told: which word, what was allowed, and never a traceback."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from replay_folders import make_recipe, make_run, make_world

from agentrl.cli.main import run as command


@pytest.fixture(scope="module")
def lamps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five episodes of two lamps."""
    folder = tmp_path_factory.mktemp("runs") / "lamps"
    plugin = make_world(folder.parent / "world")
    make_recipe(folder, plugin)
    asyncio.run(make_run(folder, plugin))
    return folder


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The exit code, and what stands on stderr."""
    with pytest.raises(SystemExit) as caught:
        command(words)
    return int(caught.value.code or 0), capsys.readouterr().err


def files(folder: Path) -> list[str]:
    """But the two that SQLite keeps beside a database that is read."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("ledger.sqlite-"))


def test_a_folder_that_is_none_names_the_one_that_was_meant(
    lamps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text("")
    wrong = {
        lamps.parent / "lamp": f"there is no such folder. Did you mean '{lamps}'?",
        lamps.parent: f"there is no ledger.sqlite in it. In it there are {lamps}",
        file: "it is a file. Name the folder that",
        tmp_path: "there is no ledger.sqlite in it.",
    }
    for folder, words in wrong.items():
        for verb in (["doctor"], ["view"], ["replay", "rerun"]):
            code, said = told(capsys, *verb, str(folder))
            assert code == 2 and said.startswith(f"error: {folder} is no run and no evaluation: {words}"), said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rescore", "--reward", "step_cost", "weight=x"], 'the reward weight = "x": must be a number.'),
        (
            ["rescore", "--reward", "step_cost", "wight=1"],
            "the reward 'step_cost' has no key 'wight'. Did you mean 'weight'? Allowed: weight.",
        ),
        (["rescore", "--reward", "stepcost"], "Did you mean 'step_cost'?"),
        (["rescore", "--regrade", "weight=1"], "--regrade takes no options, and weight is given."),
        (
            ["continue", "g000000", "--from", "0", "-m", "oracle"],
            "g000000 is a group of 5 episodes; name one: g000000-0, g000000-1, g000000-2, ...",
        ),
        (
            ["continue", "g000000-0", "--from", "2", "-m", "oracle"],
            "--from is 2; g000000-0 has 2 steps, counted from 0.",
        ),
    ],
)
def test_a_wrong_word_of_replay_is_told_and_nothing_is_written(
    lamps: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(lamps)
    verb, *rest = words
    code, error = told(capsys, "replay", verb, str(lamps), *rest)
    assert code == 2 and said in error and len(error.splitlines()) == 1
    assert files(lamps) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["keydoor"], "who is to play 'keydoor'? Give -m: a run's folder"),
        (["keydor"], "no suite and no recipe is called 'keydor'. Did you mean 'keydoor'?"),
        (["RUNS/lamp"], "Did you mean 'RUNS/lamps'?"),
        (["keydoor", "-m", "quickstart"], "quickstart is a recipe and no policy: give the folder of a run"),
        (["keydoor", "-m", "RUNS/lamps/config.toml"], "is a recipe and no policy"),
        (["keydoor", "-m", "RUNS"], "a run's has a config.toml, a model's has a config.json, and it has neither."),
        (["keydoor", "-m", "oracle", "--engine", "vllm"], "oracle plays without a model, so it takes no --engine"),
        (["keydoor", "-m", "null", "-e", "a=b"], "null plays without a model, so it takes no --engine and no -e"),
    ],
)
def test_a_wrong_word_of_eval_is_told_and_nothing_is_played(
    lamps: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = str(lamps.parent)
    out = tmp_path / "evaluation"
    code, error = told(capsys, "eval", *(word.replace("RUNS", runs) for word in words), "--out", str(out))
    assert code == 2 and said.replace("RUNS", runs) in error and not out.exists()


def test_usage_says_a_repeated_word_once(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (["train"], ["eval"], ["play"], ["env", "check"], ["replay", "rerun"]):
        with pytest.raises(SystemExit):
            command([*verb, "--help"])
        usage = capsys.readouterr().out.splitlines()[0]
        assert re.search(r" \[(KEY=VALUE|EPISODE)\]\.\.\.$", usage), usage
