"""A folder of recorded episodes with what they need to live again: its environment, its plugins, its recipe.

A run says this in `config.toml`, an evaluation in `evaluation.json`; nothing is ever written into the folder's records.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from agentrl.config import load_config
from agentrl.environment import adapt
from agentrl.errors import ConfigError, StoreError
from agentrl.plugins import Host, load_host
from agentrl.protocols import Environment
from agentrl.remote.pool import WORKERS
from agentrl.rollout.limits import EpisodeLimits
from agentrl.sections import Config, term_names
from agentrl.store.reader import FolderReader

RECIPE, MANIFEST = "config.toml", "evaluation.json"
CONTINUED, ORIGIN = "continued.json", "origin.toml"
"What a folder of continued episodes says of itself, and the recipe of the run that they were continued from."
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class World:
    """Which environment episodes were played in, and how to make it again."""

    name: str
    options: Mapping[str, Any]
    plugins: tuple[str, ...] = ()
    "Beside the installed ones."
    max_steps: int | None = None
    "Of the run, where it sets one."

    def factory(self, host: Host) -> Environment:
        return adapt(host.create("environments", self.name, self.options, where=f"environment {self.name!r}"))


@dataclass(frozen=True, slots=True)
class Continued:
    """Where the episodes of a folder were forked from, and who went on."""

    world: World
    origin: str
    "The folder."
    episode: str
    step: int
    policy: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """An open folder."""

    folder: Path
    reader: FolderReader
    host: Host
    world: World
    config: Config | None
    "The recipe of a run; None of an evaluation."
    policy: str
    "Who played, as of `agentrl eval -m`."

    def environment(self) -> Environment:
        """A fresh one."""
        return self.world.factory(self.host)

    @property
    def limits(self) -> EpisodeLimits:
        deadline = EpisodeLimits().episode_deadline if self.config is None else self.config.rollout.episode_deadline
        return EpisodeLimits(max_steps=self.world.max_steps, episode_deadline=deadline)

    @property
    def terms(self) -> list[str]:
        """Names of the reward models that scored the episodes, beside the environment."""
        return [] if self.config is None else term_names(self.config.rewards)

    def chosen(self, names: Sequence[str], limit: int | None = None) -> list[str]:
        """Ids of the episodes that are asked for: by id, or all members of a group by its id; all of them for none.

        Raises `StoreError` for a name that is neither.
        """
        if not names:
            rows = self.reader.rows("1", (), "rowid" if limit is None else f"rowid LIMIT {limit:d}")
            return [row.id for row in rows]
        found: dict[str, None] = {}
        for name in names:
            rows = self.reader.rows("id = ? OR grp = ?", (name, name), "member, id")
            ids = [row.id for row in rows]
            if not ids:
                some = ", ".join(row.id for row in self.reader.rows("1", (), "rowid LIMIT 3")) or "none"
                raise StoreError(
                    f"{self.folder} holds no episode and no group {name!r} that has ended. Episodes there: {some}, ..."
                )
            found |= dict.fromkeys(ids)
        return list(found)[:limit]


@contextmanager
def open_recorded(folder: Path, plugins: Sequence[str] = ()) -> Iterator[Recorded]:
    """Raises `StoreError` where the folder holds no episodes, `ConfigError` where nothing says what they were."""
    with FolderReader(folder) as reader:
        config, world, policy = _told_of(folder)
        host = load_host([*world.plugins, *plugins])
        try:
            yield Recorded(folder, reader, host, world, config, policy)
        finally:
            WORKERS.close()


def _told_of(folder: Path) -> tuple[Config | None, World, str]:
    if (folder / RECIPE).is_file():
        config = load_config(folder / RECIPE)
        part = config.environment
        return config, World(part.name, part.options, config.plugins, config.rollout.max_steps), str(folder)
    if (folder / CONTINUED).is_file():
        told = _json(folder / CONTINUED, Continued)
        recipe = folder / ORIGIN
        return (load_config(recipe) if recipe.is_file() else None), told.world, told.policy
    if (folder / MANIFEST).is_file():
        manifest = _json(folder / MANIFEST, _Manifest)
        return None, World(manifest.environment, manifest.options), manifest.policy
    raise ConfigError(
        f"{folder} has neither {RECIPE} (a run) nor {MANIFEST} (an evaluation), so nothing says in which environment "
        "its episodes were played."
    )


@dataclass(frozen=True, slots=True)
class _Manifest:
    """As much of an evaluation's manifest as is asked here."""

    environment: str
    options: Mapping[str, Any]
    policy: str


def _json(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.MsgspecError, OSError) as error:
        raise StoreError(f"{path} cannot be read: {error}.") from error
