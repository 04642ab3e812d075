"""A taskset of verifiers with three tools and many turns: nine rooms, a key to be found, a door to be opened.

The words are those of agentrl's quick start, so that a model which was warmed up there can begin here. What a rollout
changes is its state, and one tool server serves all rollouts.
"""

import random
import zlib
from collections.abc import Iterator
from itertools import permutations
from typing import Literal

import verifiers.v1 as vf

__all__ = ["KeysTaskset"]

SIDE = 3
MOVES = {"north": (-1, 0), "east": (0, 1), "south": (1, 0), "west": (0, -1)}


class KeysState(vf.State):
    """Rooms are numbered row by row from the north-west corner."""

    room: int = 0
    key: int = 0
    door: int = 0
    holding: bool = False
    opened: bool = False


class KeysData(vf.TaskData):
    start: int
    key: int
    door: int


def seen(state: KeysState) -> str:
    """What is sought, and where it lies from here."""
    if state.opened:
        return "door open"
    sought, where = ("door", state.door) if state.holding else ("key", state.key)
    down, right = where // SIDE - state.room // SIDE, where % SIDE - state.room % SIDE
    ways = [
        way
        for way, lies in (("south", down > 0), ("north", down < 0), ("east", right > 0), ("west", right < 0))
        if lies
    ]
    return " ".join([sought, *(ways or ["here"])])


class Rooms(vf.Toolset[vf.SharedToolsetConfig, KeysState]):
    TOOL_PREFIX = None

    @vf.tool
    def go(self, direction: Literal["north", "east", "south", "west"]) -> str:
        """Walk to the next room."""
        down, right = MOVES[direction]
        row, column = self.state.room // SIDE + down, self.state.room % SIDE + right
        if 0 <= row < SIDE and 0 <= column < SIDE:
            self.state.room = row * SIDE + column
        return seen(self.state)

    @vf.tool
    def take(self) -> str:
        """Take the key if it is here."""
        self.state.holding = self.state.holding or self.state.room == self.state.key
        return seen(self.state)

    @vf.tool
    def open(self) -> str:
        """Open the door if it is here and you hold the key."""
        self.state.opened = self.state.opened or (self.state.holding and self.state.room == self.state.door)
        return seen(self.state)


class KeysTask(vf.Task[KeysData, KeysState]):
    async def setup(self, trace: vf.Trace) -> None:
        trace.state.room, trace.state.key, trace.state.door = self.data.start, self.data.key, self.data.door

    @vf.stop
    async def is_open(self, trace: vf.Trace) -> bool:
        return bool(trace.state.opened)

    @vf.reward
    async def opened(self, trace: vf.Trace) -> float:
        return float(trace.state.opened)

    @vf.metric
    async def turns(self, trace: vf.Trace) -> float:
        return float(trace.num_turns)


class KeysConfig(vf.TasksetConfig):
    held_out: bool = False


class KeysTaskset(vf.Taskset[KeysTask, KeysConfig]):
    @classmethod
    def toolsets(cls, config: KeysConfig) -> list[vf.Toolset]:
        return [Rooms(vf.SharedToolsetConfig())]

    def load(self) -> Iterator[KeysTask]:
        """A quarter of all layouts is held out, the same as in the quick start, where the warm-up comes from."""
        layouts = list(permutations(range(SIDE * SIDE), 3))
        random.Random(0).shuffle(layouts)
        for start, key, door in layouts:
            if (zlib.crc32(f"{SIDE}:{start}:{key}:{door}".encode()) % 4 == 0) == self.config.held_out:
                prompt = seen(KeysState(room=start, key=key, door=door))
                yield KeysTask(KeysData(prompt=prompt, start=start, key=key, door=door), self.config.task)


if __name__ == "__main__":
    Rooms.run()
