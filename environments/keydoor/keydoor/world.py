"""The world of rooms: where everything is, what an action changes, what the agent sees.

Plain Python without agentrl; one seed gives one layout, and a world is nothing but its layout and its state.
"""

from __future__ import annotations

import random
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

Direction = Literal["north", "east", "south", "west"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
_MOVES: dict[Direction, tuple[int, int]] = {"north": (-1, 0), "east": (0, 1), "south": (1, 0), "west": (0, -1)}


@dataclass(frozen=True)
class Layout:
    """What a seed decides. Rooms are numbered row by row from the north-west corner."""

    size: int
    "Rooms along one side."
    start: int
    key: int
    door: int
    walls: frozenset[tuple[int, int]] = frozenset()
    "Pairs of neighboring rooms, lower number first, without a passage."

    @classmethod
    def from_seed(cls, seed: int, size: int, walls: bool) -> Layout:
        """Start, key and door are three different rooms; walls never cut a room off and move none of the three."""
        rng = random.Random(seed)
        start, key, door = rng.sample(range(size * size), 3)
        return cls(size, start, key, door, _maze(rng, size) if walls else frozenset())

    @property
    def held_out(self) -> bool:
        """True for the quarter of all layouts that only the test split uses; walls play no part."""
        return zlib.crc32(f"{self.size}:{self.start}:{self.key}:{self.door}".encode()) % 4 == 0

    def neighbor(self, room: int, direction: Direction) -> int:
        """The room reached by going that way; the same room where a wall or the edge of the world is."""
        down, right = _MOVES[direction]
        row, column = room // self.size + down, room % self.size + right
        if not (0 <= row < self.size and 0 <= column < self.size):
            return room
        other = row * self.size + column
        return room if (min(room, other), max(room, other)) in self.walls else other

    def distances(self, target: int) -> tuple[int, ...]:
        """Moves from each room to `target`."""
        found = {target: 0}
        queue = deque([target])
        while queue:
            room = queue.popleft()
            for direction in DIRECTIONS:
                other = self.neighbor(room, direction)
                if other not in found:
                    found[other] = found[room] + 1
                    queue.append(other)
        return tuple(found[room] for room in range(self.size * self.size))

    @cached_property
    def to_key(self) -> tuple[int, ...]:
        return self.distances(self.key)

    @cached_property
    def to_door(self) -> tuple[int, ...]:
        return self.distances(self.door)

    @property
    def shortest(self) -> int:
        """Actions of the shortest win: to the key, take, to the door, open."""
        return self.to_key[self.start] + 1 + self.to_door[self.key] + 1


@dataclass(slots=True)
class World:
    """One episode. An action that makes no sense here (a wall, no key) changes nothing but the count of actions."""

    layout: Layout
    room: int = field(init=False)
    holding: bool = False
    opened: bool = False
    actions: int = 0

    def __post_init__(self) -> None:
        self.room = self.layout.start

    @property
    def target(self) -> int:
        return self.layout.door if self.holding else self.layout.key

    def go(self, direction: Direction) -> None:
        self.actions += 1
        self.room = self.layout.neighbor(self.room, direction)

    def take(self) -> None:
        self.actions += 1
        self.holding = self.holding or self.room == self.layout.key

    def open(self) -> None:
        self.actions += 1
        self.opened = self.opened or (self.holding and self.room == self.layout.door)

    def idle(self) -> None:
        self.actions += 1

    def describe(self, *, hints: bool = True) -> str:
        """A few words: what is sought, where it lies from here, and the closed sides where they cannot be inferred."""
        if self.opened:
            return "door open"
        size, words = self.layout.size, ["door" if self.holding else "key"]
        down, right = self.target // size - self.room // size, self.target % size - self.room % size
        if not (down or right):
            words.append("here")
        elif hints:
            words += ["south" if down > 0 else "north"] if down else []
            words += ["east" if right > 0 else "west"] if right else []
        if self.layout.walls or not hints:
            closed = [way for way in DIRECTIONS if self.layout.neighbor(self.room, way) == self.room]
            words += ["wall", *closed] if closed else []
        return " ".join(words)

    def right_moves(self) -> list[Direction]:
        """The directions that bring the agent nearer to what it seeks; empty where it is there."""
        far = self.layout.to_door if self.holding else self.layout.to_key
        here = far[self.room]
        return [way for way in DIRECTIONS if far[self.layout.neighbor(self.room, way)] < here]

    def key_of_state(self) -> str:
        """Equal exactly where room, key, door and layout are equal; the count of actions is not part of it."""
        layout = self.layout
        place = f"{layout.size} room {self.room} key {'held' if self.holding else layout.key} door {layout.door}"
        walls = " walls " + " ".join(f"{a}-{b}" for a, b in sorted(layout.walls)) if layout.walls else ""
        return f"{place} {'open' if self.opened else 'locked'}{walls}"

    def snapshot(self) -> dict[str, Any]:
        layout = self.layout
        return {
            "size": layout.size,
            "start": layout.start,
            "key": layout.key,
            "door": layout.door,
            "walls": [list(pair) for pair in sorted(layout.walls)],
            "room": self.room,
            "holding": self.holding,
            "opened": self.opened,
            "actions": self.actions,
        }

    @classmethod
    def from_snapshot(cls, data: dict[str, Any]) -> World:
        walls = frozenset((int(a), int(b)) for a, b in data["walls"])
        world = cls(Layout(data["size"], data["start"], data["key"], data["door"], walls))
        world.room, world.holding = data["room"], data["holding"]
        world.opened, world.actions = data["opened"], data["actions"]
        return world


def _maze(rng: random.Random, size: int) -> frozenset[tuple[int, int]]:
    """Walls between half of the neighbors that a random spanning tree does not need."""
    pairs = list(_passages(size))
    rng.shuffle(pairs)
    part = list(range(size * size))
    walls = set()
    for a, b in pairs:
        if part[a] != part[b]:
            old, new = part[a], part[b]
            part = [new if p == old else p for p in part]
        elif rng.random() < 0.5:
            walls.add((a, b))
    return frozenset(walls)


def _passages(size: int) -> Iterator[tuple[int, int]]:
    for room in range(size * size):
        if room % size < size - 1:
            yield room, room + 1
        if room < size * (size - 1):
            yield room, room + size
