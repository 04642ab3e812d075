"""The official games: which of them are played, by split, from the folder that ALFWorld calls `ALFWORLD_DATA`.

Left out is what ALFWorld leaves out: movable receptacles, slices, and games that are not marked as solvable.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "valid_seen", "valid_unseen")


@dataclass(frozen=True, slots=True)
class Official:
    """One game file."""

    name: str
    "Its folder below the split: stable, and unique in it."
    kind: str


def root_of(data: str) -> Path:
    """The folder with the splits. Raises `ValueError` where there is none."""
    given = Path(data).expanduser().absolute()
    for root in (given / "json_2.1.1", given):
        if all((root / split).is_dir() for split in SPLITS):
            return root
    raise ValueError(
        f"data is {data!r}; neither there nor in json_2.1.1 below it are the folders {', '.join(SPLITS)}. "
        "`alfworld-download` fetches the official games; without `data` tasks are generated."
    )


def official(root: Path, split: str, kinds: tuple[str, ...]) -> Iterator[Official]:
    """By name. Raises `ValueError` where a split has no game, or a file of it is broken."""
    found = False
    for file in sorted((root / split).rglob("game.tw-pddl")):
        folder = file.parent
        name = folder.relative_to(root / split).as_posix()
        if "movable" in name or "Sliced" in name:
            continue
        told = folder / "traj_data.json"
        try:
            kind = str(json.loads(told.read_text())["task_type"])
            # The whole game is read for one flag of it, as ALFWorld does.
            solvable = bool(json.loads(file.read_text()).get("solvable"))
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{folder} is no game of ALFWorld: {error!r}. Fetch it again.") from error
        if solvable and kind in kinds:
            found = True
            yield Official(name, kind)
    if not found:
        raise ValueError(f"{root / split} holds no solvable game of the kinds {', '.join(kinds)}.")
