"""Where games lie: a folder of yours, or the archive in the box; which of them are held out.

A game is a `.z8` file beside the `.json` file of its name, as TextWorld writes them.
"""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

SPLITS = ("train", "test")
BOX = Path(__file__).with_name("games.tar.xz")
"Of seed s (1 to 8 to train on, 101 to 104 held out), with 1 + s % 3 rooms, 4 + s % 3 things, 2 + s % 3 commands."
HELD_OUT = 5
"Of a folder without `train` and `test`, every so-manieth game is held out, at least one."


@dataclass(frozen=True, slots=True)
class Games:
    """The games of one folder or of the box, by split; names are paths below it, without `.z8`."""

    folder: Path | None
    train: tuple[str, ...]
    test: tuple[str, ...]

    def of(self, split: str) -> tuple[str, ...]:
        """Raises `ValueError` for a split that is not there."""
        if split not in SPLITS:
            raise ValueError(f"textworld has no split {split!r}; it has 'train' and 'test'.")
        return self.test if split == "test" else self.train

    def laid_out(self, name: str, scratch: Path) -> Path:
        """The `.z8` file of a game; the box is unpacked into `scratch`. Raises `ValueError` without it."""
        if name not in (*self.train, *self.test):
            raise ValueError(f"there is no game {name!r} in {self.folder or 'the box'}.")
        if self.folder is not None:
            return self.folder / f"{name}.z8"
        if not (scratch / f"{name}.json").exists():
            with tarfile.open(BOX) as archive:
                archive.extractall(scratch, filter="data")
        return scratch / f"{name}.z8"


def games_in(folder: str) -> Games:
    """The games below `folder`, or those in the box where it is "".

    `train/` and `test/` below it are its splits; without them every fifth file by name is held out. Raises `ValueError`
    where a split has none.
    """
    if not folder:
        with tarfile.open(BOX) as archive:
            return _split(None, [name for name in archive.getnames() if name.endswith(".z8")])
    root = Path(folder).expanduser().absolute()
    if not root.is_dir():
        raise ValueError(f"games is {folder!r}, and that is no folder. Make one: agentrl textworld make {folder}")
    found = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.z8"))
    alone = [name for name in found if not (root / name).with_suffix(".json").is_file()]
    if alone:
        raise ValueError(f"{root / alone[0]} has no .json file beside it, so it has no score: keep what tw-make wrote.")
    return _split(root, found)


def _split(root: Path | None, files: Sequence[str]) -> Games:
    names = sorted(str(PurePosixPath(file).with_suffix("")) for file in files)
    if all(name.startswith(("train/", "test/")) for name in names):
        test = tuple(name for name in names if name.startswith("test/"))
    else:
        test = tuple(names[HELD_OUT - 1 :: HELD_OUT] or names[-1:])
    train = tuple(name for name in names if name not in test)
    if not train or not test:
        raise ValueError(
            f"{root} has {len(train)} games to train on and {len(test)} held out; one of each is needed, in `train` "
            f"and `test` or side by side. Make some: agentrl textworld make {root}"
        )
    return Games(root, train, test)
