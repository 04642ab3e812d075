"""One folder as the page sees it: a run or an evaluation, its episodes one at a time, its files read when asked for.

Nothing is written into the folder, and no name from outside becomes a path: episodes are found in the ledger.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agentrl.errors import StoreError
from agentrl.evaluation.harness import Evaluation
from agentrl.evaluation.result import MANIFEST, RESULTS, EvaluationResult, Manifest, load_manifest, load_result
from agentrl.models import KNOWN, models_folder
from agentrl.runs.folder import RunFolder
from agentrl.store.images import ImageStore
from agentrl.store.ledger import LEDGER, PAYLOADS, TRAINED
from agentrl.store.reader import FolderReader
from agentrl.training.metrics import read_metrics
from agentrl.types import Status
from agentrl.view.episode import neighbours, view_episode
from agentrl.view.pieces import FILE, Pieces
from agentrl.view.query import Query, find_episodes
from agentrl.view.recipe import read_recipe
from agentrl.view.shapes import EpisodePage, EpisodeView, Neighbour

SCORED = ", ".join(f"'{status.value}'" for status in Status if status.trains)
"SQL: the statuses of episodes that are scored."


class Archive:
    """Raises `StoreError` where the folder holds no ledger of this version."""

    def __init__(self, folder: Path) -> None:
        self.reader = FolderReader(folder)
        self.folder = folder
        self.name = folder.resolve().name
        self.images = ImageStore(folder)
        self._run = RunFolder(folder)
        self._pieces: Pieces | None = None
        self._beside: tuple[tuple[str, int], list[Neighbour]] | None = None
        self._turn = threading.Lock()

    @property
    def is_run(self) -> bool:
        return self._run.recipe.is_file()

    @property
    def recipe(self) -> dict[str, Any]:
        """Empty for an evaluation."""
        return read_recipe(self._run.recipe)

    def manifest(self) -> Manifest | None:
        """What an evaluation says that it is; None for a run, or where it is torn."""
        try:
            return load_manifest(self.folder)
        except StoreError:
            return None

    def result(self) -> EvaluationResult | None:
        """Of an evaluation that came to an end; None where there is none, or half of one."""
        try:
            return load_result(self.folder)
        except StoreError:
            return None

    def conditions(self) -> dict[str, Any]:
        """A run's recipe, or what an evaluation was made under."""
        manifest = self.manifest()
        if manifest is None:
            return self.recipe
        told: dict[str, Any] = msgspec.to_builtins(manifest)
        # Told elsewhere on the page, or nothing to compare by.
        return {key: value for key, value in told.items() if key not in ("command", "known_bad")}

    def close(self) -> None:
        self.reader.close()

    def revision(self) -> int:
        """When anything that is shown was written last, in milliseconds of Unix time."""
        files = [LEDGER, f"{LEDGER}-wal", PAYLOADS, TRAINED, self._run.metrics.name, "evaluations", MANIFEST, RESULTS]
        return max((_changed(self.folder / name) for name in files), default=0)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines so far; none where they cannot be read."""
        try:
            return read_metrics(self._run.metrics)
        except OSError:
            return []

    def evaluations(self) -> list[Evaluation]:
        """A run's evaluations on held-out tasks, by update; torn ones are left out."""
        found = []
        for path in sorted((self.folder / "evaluations").glob("update-*.json")):
            try:
                found.append(Evaluation.load(path))
            except OSError:
                continue
        return found

    def outcomes(self) -> dict[str, int]:
        """Episodes by outcome, the commonest first."""
        counted = (
            "SELECT outcome, count(*) FROM trajectories WHERE payload IS NOT NULL GROUP BY outcome ORDER BY 2 DESC"
        )
        return dict(self.reader.query(counted))

    def shares(self) -> dict[str, float]:
        """By task, the share of its scored episodes that succeeded."""
        sql = (
            f"SELECT task, avg(success) FROM trajectories WHERE status IN ({SCORED}) GROUP BY task ORDER BY min(rowid)"
        )
        return dict(self.reader.query(sql))

    def successes(self) -> dict[str, list[float]]:
        """By task its scored episodes, 1 or 0: what intervals are made of. Of an evaluation."""
        sql = f"SELECT task, sum(success), count(*) FROM trajectories WHERE status IN ({SCORED}) GROUP BY task"
        return {task: [1.0] * won + [0.0] * (all_ - won) for task, won, all_ in self.reader.query(sql)}

    def attempts(self, tasks: Sequence[str], most: int) -> dict[str, list[str]]:
        """Ids of the episodes of some tasks, at most `most` each."""
        found: dict[str, list[str]] = {}
        for start in range(0, len(tasks), 500):
            part = tuple(tasks[start : start + 500])
            places = ", ".join("?" * len(part))
            sql = f"SELECT task, id FROM trajectories WHERE payload IS NOT NULL AND task IN ({places}) ORDER BY rowid"
            for task, name in self.reader.query(sql, part):
                if len(members := found.setdefault(task, [])) < most:
                    members.append(name)
        return found

    def episodes(self, query: Query) -> EpisodePage:
        return find_episodes(self.reader, query)

    def episode(self, name: str) -> EpisodeView:
        """Raises `StoreError` where none of that name has ended, or where its payload is damaged."""
        return view_episode(self.reader, self.images, self.pieces(), name, self._group_of(name))

    def _group_of(self, name: str) -> list[Neighbour]:
        """Read once while nothing is written: who looks at one member looks at the next."""
        found = self.reader.query("SELECT grp FROM trajectories WHERE id = ?", (name,))
        group = found[0][0] if found else ""
        state = (group, self.revision())
        with self._turn:
            if self._beside is None or self._beside[0] != state:
                self._beside = (state, neighbours(self.reader, group))
            return self._beside[1]

    def pieces(self) -> Pieces:
        """The text of token ids, from the run's own tokenizer; read once, as it never changes."""
        with self._turn:
            if self._pieces is None:
                folder = next((f for f in self._tokenizers() if (f / FILE).is_file()), None)
                try:
                    self._pieces = Pieces.load(folder) if folder else Pieces({})
                except StoreError:
                    self._pieces = Pieces({})
            return self._pieces

    def _tokenizers(self) -> list[Path]:
        """Where the tokenizer may lie, the likeliest first: the run's, or that of what was evaluated."""
        named = self.recipe.get("model", {}).get("path")
        manifest = self.manifest()
        if manifest is not None:
            named = manifest.identity.get("name")
        found = list(_of_run(self.folder))
        if isinstance(named, str) and named:
            path = models_folder() / named if named in KNOWN else Path(named).expanduser()
            found += [path, *_of_run(path)]
        return found


def _of_run(folder: Path) -> Iterator[Path]:
    run = RunFolder(folder)
    yield from sorted((folder / "checkpoints").glob("batch-*/model"), reverse=True)
    yield run.warm_model
    yield run.blank_model


def primary(evaluations: Sequence[Evaluation], recipe: Mapping[str, Any]) -> list[Evaluation]:
    """Those at the temperature that the recipe names first, by update: the ones that a verdict is about."""
    scored = [evaluation for evaluation in evaluations if evaluation.successes()]
    wanted = recipe.get("evaluation", {}).get("temperatures", ())
    order = [*wanted, *(evaluation.temperature for evaluation in scored)]
    for temperature in order:
        if found := [e for e in scored if e.temperature == temperature]:
            return sorted(found, key=lambda e: e.update)
    return []


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns // 1_000_000
    except OSError:
        return 0
