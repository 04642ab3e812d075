"""The environment `minigrid`: MiniGrid's and BabyAI's rooms, told as what the agent sees before it.

The words hold what the 7 x 7 view holds and nothing of the rest of the world.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import minigrid  # noqa: F401  (registers the worlds)
import numpy as np
from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT, STATE_TO_IDX
from minigrid.utils.baby_ai_bot import BabyAIBot

from agentrl import Action, Task, call
from agentrl_gymnasium.environment import GymnasiumText
from agentrl_gymnasium.oracle import shortest_win

ACTIONS = ("turn left", "turn right", "go forward", "pick up", "drop", "toggle", "done")
STATES = {index: name for name, index in STATE_TO_IDX.items()}
UNTOLD = {"unseen", "empty", "floor", "agent"}


class MiniGridText(GymnasiumText):
    """A MiniGrid or BabyAI world in words: the mission, what is carried, what lies where in the agent's view."""

    def __init__(
        self,
        *,
        id: str = "BabyAI-GoToObj-v0",
        options: dict[str, Any] | None = None,
        max_steps: int = 32,
    ) -> None:
        """id: of the registered world. options: passed to `gymnasium.make`. max_steps: actions per episode."""
        super().__init__(id=id, options=options, actions=list(ACTIONS), max_steps=max_steps)

    def introduction(self) -> str:
        return (
            "You are in rooms of square fields and see a part of them before you. Distances count fields. "
            "'toggle' opens what is right before you; 'pick up' takes it."
        )

    def look(self) -> str:
        return "\n".join(
            (f"Mission: {self._last['mission']}.", told_view(self._last["image"]), f"You carry {self._carried()}.")
        )

    def state_key(self) -> str:
        return f"{self.id} {self._world.hash(size=32)} {self._carried()} {self._world.mission}"

    def oracle(self, task: Task) -> Iterable[Action]:
        """BabyAI's own bot where the world is one of BabyAI's, else a search for the shortest win."""
        if self.id.startswith("BabyAI"):
            return self._bot()
        return self._searched()

    def _bot(self) -> Iterator[Action]:
        bot, last = BabyAIBot(self._world), None
        while not self.done():
            last = bot.replan(last)
            yield call("act", action=ACTIONS[int(last)])

    def _searched(self) -> Iterator[Action]:
        def key(world: Any) -> str:
            return f"{world.hash(size=32)} {_thing(world.carrying)}"

        for action in shortest_win(self._world, range(len(ACTIONS) - 1), key):
            yield call("act", action=ACTIONS[action])

    @property
    def _world(self) -> Any:
        return self.world.unwrapped

    def _carried(self) -> str:
        return _thing(self._world.carrying)


def told_view(view: np.ndarray[Any, Any]) -> str:
    """[width, height, 3] of (object, colour, state); the agent stands in the middle of the last row, looking ahead."""
    width, height, _ = view.shape
    middle, own_row = width // 2, height - 1
    seen = []
    for column in range(width):
        for row in range(height):
            name = IDX_TO_OBJECT[int(view[column, row, 0])]
            if name in UNTOLD or name == "wall" or (column, row) == (middle, own_row):
                continue
            state = f"{STATES[int(view[column, row, 2])]} " if name == "door" else ""
            thing = f"a {state}{IDX_TO_COLOR[int(view[column, row, 1])]} {name}"
            seen.append((own_row - row, column - middle, thing))
    seen.sort(key=lambda entry: (entry[0] + abs(entry[1]), entry[1]))
    ahead = next((step for step in range(1, height) if _is_wall(view[middle, own_row - step])), None)
    lines = [f"You see {thing} {_place(forward, right)}." for forward, right, thing in seen]
    lines.append(f"A wall is {ahead} ahead." if ahead else "No wall is ahead within your view.")
    return "\n".join(lines)


def _is_wall(cell: np.ndarray[Any, Any]) -> bool:
    return IDX_TO_OBJECT[int(cell[0])] == "wall"


def _place(forward: int, right: int) -> str:
    parts = [f"{forward} ahead"] if forward else []
    if right:
        parts.append(f"{abs(right)} to the {'right' if right > 0 else 'left'}")
    return " and ".join(parts)


def _thing(carried: Any) -> str:
    return "nothing" if carried is None else f"a {carried.color} {carried.type}"
