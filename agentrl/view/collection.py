"""The folders of one page: the first is what it is about, the others are what it is compared with.

What is dear is computed once for each state of the folders.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from agentrl.errors import InvalidDataError, StoreError, UnknownNameError
from agentrl.view.archive import Archive
from agentrl.view.grid import grid
from agentrl.view.overview import overview
from agentrl.view.query import find_episodes, read_query
from agentrl.view.shapes import EpisodePage, EpisodeView, Grid, Overview, Revision

T = TypeVar("T")


class Collection:
    """Answers what a page asks. Raises `StoreError` where one of the folders is no run and no evaluation."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.archives: list[Archive] = []
        self._turn = threading.Lock()
        self._kept: dict[str, tuple[object, Any]] = {}
        try:
            for folder in folders:
                self.archives.append(Archive(folder))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        for archive in self.archives:
            archive.close()

    def revision(self) -> Revision:
        return Revision(max(a.revision() for a in self.archives), any(a.reader.live() for a in self.archives))

    def overview(self) -> Overview:
        return self._once("overview", lambda: overview(self.archives))

    def grid(self) -> Grid:
        return self._once("grid", lambda: grid(self.archives))

    def episodes(self, parameters: Mapping[str, str]) -> EpisodePage:
        """Raises `InvalidDataError` for parameters that mean nothing."""
        return find_episodes(self._archive(parameters.get("run", "0")).reader, read_query(parameters))

    def episode(self, name: str, run: str = "0") -> EpisodeView:
        """Raises `UnknownNameError` where there is none of that name, `StoreError` where it is damaged."""
        archive = self._archive(run)
        if not archive.reader.query("SELECT 1 FROM trajectories WHERE id = ? AND payload IS NOT NULL", (name,)):
            raise UnknownNameError(f"{archive.folder} holds no episode {name!r} that has ended.")
        return archive.episode(name)

    def image(self, name: str) -> bytes:
        """Raises `StoreError` where none of the folders has it."""
        for archive in self.archives:
            try:
                return archive.images.get(name)
            except StoreError:
                continue
        raise StoreError(f"there is no image {name!r}.")

    def _archive(self, run: str) -> Archive:
        if not run.isdecimal() or int(run) >= len(self.archives):
            raise InvalidDataError(f"run is {run!r}; this page shows {len(self.archives)} folders, counted from 0.")
        return self.archives[int(run)]

    def _once(self, name: str, compute: Callable[[], T]) -> T:
        with self._turn:
            state = self.revision()
            kept = self._kept.get(name)
            if kept is None or kept[0] != state:
                kept = self._kept[name] = (state, compute())
            found: T = kept[1]
            return found
