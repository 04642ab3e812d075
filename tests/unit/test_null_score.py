"""What an agent that says nothing earns: measured once, kept, and left out where the environment fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agentrl import Env, Task
from agentrl.errors import StoreError
from agentrl.plugins import Host
from agentrl.runs.blueprint import Blueprint
from agentrl.runs.folder import RunFolder
from agentrl.runs.null import TASKS, NullScore, null_score
from agentrl.sections import Config
from agentrl.training.report import ProgressReport


class Patience(Env):
    """Pays for silence: a half of the tasks are won by it."""

    runs_in = "loop"
    asked = 0

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken

    def tasks(self, split: str) -> Iterator[Task]:
        for number in range(1000):
            yield Task(f"{split}-{number}", "Patience", seed=number)

    def reset(self, task: Task) -> str:
        if self.broken:
            raise OSError("no world today")
        Patience.asked += 1
        self.pays = task.seed % 2
        return "wait"

    def reward(self) -> float:
        return float(self.pays)


@dataclass
class Notes:
    told: list[str] = field(default_factory=list)

    def show(self, report: ProgressReport) -> None: ...

    def note(self, text: str) -> None:
        self.told.append(text)


def blueprint(folder: Path, **options: object) -> Blueprint:
    host = Host()
    host.register(Patience)
    name = next(entry.name for entry in host.entries("environments"))
    recipe = {"name": "x", "environment": {"name": name, **options}, "model": {"name": "tiny"}}
    return Blueprint(Config.model_validate(recipe), host, RunFolder(folder), Notes())


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_it_is_played_once_and_read_afterwards(tmp_path: Path) -> None:
    before = Patience.asked
    run = blueprint(tmp_path)
    assert await null_score(run, fresh=True) == NullScore(TASKS, 0.5, 0.5)
    assert await null_score(run, fresh=True) == await null_score(run, fresh=False) == NullScore(TASKS, 0.5, 0.5)
    assert Patience.asked == before + TASKS


async def test_a_run_that_went_on_without_is_not_measured_late(tmp_path: Path) -> None:
    assert await null_score(blueprint(tmp_path), fresh=False) is None
    assert names(tmp_path) == []


async def test_a_broken_environment_is_not_judged_by_it(tmp_path: Path) -> None:
    assert await null_score(blueprint(tmp_path, broken=True), fresh=True) is None
    assert names(tmp_path) == []


async def test_a_torn_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "null.json").write_text('{"tasks": 8')
    with pytest.raises(StoreError, match=r"null.json cannot be read.*Delete it"):
        await null_score(blueprint(tmp_path), fresh=True)
