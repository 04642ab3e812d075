"""The recipe's strategy `expert`: whose episodes a group that only fails is shown.

Recorded actions are played again in the environment and never taken on trust: what does not win is not shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentrl.errors import ConfigError
from agentrl.protocols import Rollout
from agentrl.rollout.strategies.expert import Oracle, Shown
from agentrl.store.ledger import LEDGER
from agentrl.store.reader import FolderReader
from agentrl.types import Action, Task


@dataclass(frozen=True, slots=True)
class Recorded:
    """Implements `expert.Expert`: of each task the shortest success of a run or an evaluation."""

    folder: Path
    names: Mapping[str, str]
    "By task id, the trajectory."

    async def line(self, task: Task, rollout: Rollout) -> Sequence[Action]:
        name = self.names.get(task.id)
        if name is None:
            return ()
        with FolderReader(self.folder) as reader:
            return [step.action for step in reader.trajectory(name).steps]


def open_expert(*, recorded: Path | None = None) -> Shown:
    """A strategy that shows the oracle's episodes, or those recorded in a run's or an evaluation's folder."""
    return Shown(Oracle() if recorded is None else _recorded(recorded))


def _recorded(folder: Path) -> Recorded:
    if not (folder / LEDGER).is_file():
        raise ConfigError(
            f"recorded names {folder}, which holds no {LEDGER}; name the folder of a run or an evaluation."
        )
    with FolderReader(folder) as reader:
        # Read from the longest to the shortest: the last of a task stays.
        names = {row.task: row.id for row in reader.rows("success = 1", order="steps DESC, id DESC")}
    if not names:
        raise ConfigError(f"no episode recorded in {folder} succeeded; an expert has at least one success.")
    return Recorded(folder, names)
