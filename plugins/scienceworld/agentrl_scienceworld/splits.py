"""Which variations of which task are whose: ScienceWorld's own split into train, dev and test.

The numbers are those of version 1.2.3, where each split is a run of variations; they stand here so that listing tasks
starts no Java. A test compares them with the simulator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

Split = Literal["train", "dev", "test"]

SIZES: Mapping[str, tuple[int, int, int]] = {
    "boil": (14, 7, 9),
    "change-the-state-of-matter-of": (14, 7, 9),
    "chemistry-mix": (16, 8, 8),
    "chemistry-mix-paint-secondary-color": (18, 9, 9),
    "chemistry-mix-paint-tertiary-color": (18, 9, 9),
    "find-animal": (150, 75, 75),
    "find-living-thing": (150, 75, 75),
    "find-non-living-thing": (150, 75, 75),
    "find-plant": (150, 75, 75),
    "freeze": (14, 7, 9),
    "grow-fruit": (62, 31, 33),
    "grow-plant": (62, 31, 33),
    "identify-life-stages-1": (6, 3, 5),
    "identify-life-stages-2": (4, 2, 4),
    "inclined-plane-determine-angle": (84, 42, 42),
    "inclined-plane-friction-named-surfaces": (692, 346, 348),
    "inclined-plane-friction-unnamed-surfaces": (80, 40, 42),
    "lifespan-longest-lived": (62, 31, 32),
    "lifespan-longest-lived-then-shortest-lived": (62, 31, 32),
    "lifespan-shortest-lived": (62, 31, 32),
    "measure-melting-point-known-substance": (218, 109, 109),
    "measure-melting-point-unknown-substance": (150, 75, 75),
    "melt": (14, 7, 9),
    "mendelian-genetics-known-plant": (60, 30, 30),
    "mendelian-genetics-unknown-plant": (240, 120, 120),
    "power-component": (10, 5, 5),
    "power-component-renewable-vs-nonrenewable-energy": (10, 5, 5),
    "test-conductivity": (450, 225, 225),
    "test-conductivity-of-unknown-substances": (300, 150, 150),
    "use-thermometer": (270, 135, 135),
}
"By name, in the simulator's order: variations to train on, of the dev split, and of the test split, one after another."


def variations(name: str, split: Split) -> range:
    """Of one kind of task."""
    train, dev, test = SIZES[name]
    begins = {"train": 0, "dev": train, "test": train + dev}[split]
    return range(begins, begins + {"train": train, "dev": dev, "test": test}[split])


def in_turns(names: tuple[str, ...], split: Split, most: int | None) -> Iterator[tuple[str, int]]:
    """Name and variation: the first variation of each kind of task, then the second of each, and so on."""
    runs = {name: variations(name, split)[:most] for name in names}
    for place in range(max(map(len, runs.values()))):
        for name, run in runs.items():
            if place < len(run):
                yield name, run[place]
