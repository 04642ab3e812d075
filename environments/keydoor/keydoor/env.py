"""The environment `keydoor`: the world of rooms behind three tools, its tasks, its oracle and its cheats.

No layout of the test split is ever a task of the train split, whatever the seeds.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

from agentrl import Action, Env, Task, ToolError, call, tool
from keydoor.world import DIRECTIONS, Direction, Layout, World

TEST_TASKS = 512
_SEEDS_SEARCHED = (
    20_000  # a small world has fewer held-out layouts than TEST_TASKS: all of them turn up within this many seeds
)


class KeyDoor(Env):
    """Find the key, take it, go to the door, open it."""

    runs_in = "loop"

    def __init__(
        self, *, size: int = 4, horizon: int = 16, walls: bool = False, hints: bool = True, skill: float = 0.4
    ) -> None:
        """size: rooms along one side. horizon: actions per episode. walls: close passages between rooms.

        hints: tell where the key (then the door) lies from here. skill: how often the demonstrator moves right.
        """
        if not 3 <= size <= 12:
            raise ValueError(f"size is {size}; keydoor needs 3 to 12 rooms along one side.")
        if horizon < 2 * size:
            raise ValueError(f"horizon is {horizon}; a world of size {size} needs at least {2 * size} actions.")
        if not 0 <= skill <= 1:
            raise ValueError(f"skill is {skill}; it is a probability, from 0 to 1.")
        self.size, self.walls, self.hints, self.skill = size, walls, hints, skill
        self.max_steps = horizon
        self.world = World(Layout.from_seed(0, size, walls))

    def tasks(self, split: str) -> Iterator[Task]:
        """train: endless. test: 512 different layouts (fewer in a world that has fewer). All can be won in time."""
        if split not in ("train", "test"):
            raise ValueError(f"keydoor has no split {split!r}; it has 'train' and 'test'.")
        held_out, seen = split == "test", set[Layout]()
        for seed in range(_SEEDS_SEARCHED) if held_out else count():
            layout = self._layout(seed)
            if layout.held_out != held_out or layout in seen or layout.shortest > self.max_steps:
                continue
            if held_out:
                seen.add(layout)
            yield Task(f"keydoor-{split}-{seed}", "keydoor", seed, {"layout": seed}, split)
            if len(seen) == TEST_TASKS:
                return

    def reset(self, task: Task) -> str:
        self.world = World(self._layout(int(task.data["layout"])))
        return self._look()

    @tool
    def go(self, direction: Direction) -> str:
        """Walk to the next room."""
        self._spend()
        self.world.go(direction)
        return self._look()

    @tool
    def take(self) -> str:
        """Take the key if it is here."""
        self._spend()
        self.world.take()
        return self._look()

    @tool
    def open(self) -> str:
        """Open the door if it is here and you hold the key."""
        self._spend()
        self.world.open()
        return self._look()

    def answered(self, text: str) -> str:
        """Words change nothing here: they cost one action."""
        self.world.idle()
        return self._look()

    def done(self) -> bool:
        return self.world.opened or self.world.actions > self.max_steps

    def reward(self) -> float:
        return float(self.world.opened)

    def scores(self) -> dict[str, float]:
        return {"success": float(self.world.opened), "length": float(min(self.world.actions, self.max_steps))}

    def state_key(self) -> str:
        return self.world.key_of_state()

    def snapshot(self) -> dict[str, Any]:
        return self.world.snapshot()

    def restore(self, snapshot: dict[str, Any]) -> str:
        self.world = World.from_snapshot(snapshot)
        return self._look()

    def oracle(self, task: Task) -> Iterator[Action]:
        """A shortest win."""
        while not self.world.opened:
            ways = self.world.right_moves()
            if ways:
                yield call("go", direction=ways[0])
            else:
                yield call("open" if self.world.holding else "take")

    def demonstrate(self, task: Task, rng: random.Random) -> Iterator[Action]:
        """Moves right with probability `skill`, else calls any tool; takes and opens by chance alone."""
        while not self.world.opened:
            ways = self.world.right_moves()
            if ways and rng.random() < self.skill:
                yield call("go", direction=rng.choice(ways))
            else:
                yield rng.choice([*(call("go", direction=way) for way in DIRECTIONS), call("take"), call("open")])

    def cheats(self, task: Task) -> dict[str, Iterable[Action]]:
        return {
            "open_everywhere_without_the_key": self._sweep("open"),
            "take_without_looking": (call("take") for _ in range(self.max_steps)),
            "open_without_looking": (call("open") for _ in range(self.max_steps)),
            "take_everything_and_open_nothing": self._sweep("take"),
        }

    def _sweep(self, word: str) -> Iterator[Action]:
        """Row by row through all rooms, calling one tool in each."""
        actions = 0
        for room in range(self.size * self.size):
            row, column = divmod(room, self.size)
            way = ("east" if row % 2 == 0 else "west") if column < self.size - 1 else "south"
            yield call(word)
            yield call("go", direction=way)
            actions += 2
            if actions >= self.max_steps:
                return

    def _spend(self) -> None:
        """Several calls in one answer do not stretch the horizon."""
        if self.world.actions >= self.max_steps:
            self.world.idle()
            raise ToolError(f"all {self.max_steps} actions are used.")

    def _layout(self, seed: int) -> Layout:
        return Layout.from_seed(seed, self.size, self.walls)

    def _look(self) -> str:
        return self.world.describe(hints=self.hints)
