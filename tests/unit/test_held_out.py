"""Which tasks a recipe measures on: never those that it trains on because of a slip in the split's name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from agentrl import Env, Task
from agentrl.config import load_config
from agentrl.errors import ConfigError
from agentrl.plugins import load_host
from agentrl.runs.blueprint import Blueprint
from agentrl.runs.folder import RunFolder


class Odd(Env):
    """Knows two splits and takes every other word for "train"."""

    def tasks(self, split):
        return [Task(f"n{n}", "odd", n) for n in range(20) if (n % 4 == 0) == (split == "test")]

    def reset(self, task):
        return "?"


def held_out(tmp_path: Path, split: str) -> list[str]:
    recipe = tmp_path / "odd.toml"
    recipe.write_text(f"[environment]\nname = 'odd'\n[model]\nname = 'tiny'\n[evaluation]\nsplit = '{split}'\n")
    host = load_host()
    host.register(Odd)
    blueprint = Blueprint(load_config(recipe), host, RunFolder(tmp_path / "run"), SimpleNamespace())
    return [task.id for task in blueprint.held_out()]


def test_a_split_that_is_taken_for_train_is_refused(tmp_path: Path) -> None:
    assert held_out(tmp_path, "test") == ["n0", "n4", "n8", "n12", "n16"]
    with pytest.raises(
        ConfigError, match=r"split is 'tset', and its tasks are trained on \(15 of the first 64, such as 'n1'"
    ):
        held_out(tmp_path, "tset")
    assert held_out(tmp_path, "train")[0] == "n1", "asked for in so many words"
