"""The environment `alfworld`: a household task behind one tool, `act`, whose argument is a command.

The reward is 1 where the task is done and 0 where it is not; no task that is held out is trained on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from agentrl import Action, Env, Task, ToolError, call, tool
from agentrl_alfworld import household, package
from agentrl_alfworld.engine import NOTHING, Game
from agentrl_alfworld.household import KINDS
from agentrl_alfworld.official import SPLITS, official, root_of

HELD_OUT_TASKS = 512
"Generated ones, in each of the two splits."
ENDLESS = 10**9
"Training tasks; those of valid_seen, in the same rooms, have the seeds behind them."
LONGEST = 200


class AlfWorld(Env):
    """Find, clean, heat, cool, look at and put things in a household of words, one command at a time."""

    runs_in = "process"
    reset_deadline = 60.0

    def __init__(
        self,
        *,
        data: str = "",
        kinds: list[str] | None = None,
        admissible: bool = True,
        max_steps: int = 50,
        places: int = 10,
        clutter: int = 8,
    ) -> None:
        """data: folder of the official games (what ALFWORLD_DATA names); tasks are generated where it is empty.

        kinds: of the six kinds of tasks; all where None. admissible: tell what can be done here. max_steps: actions per
        episode. places, clutter: receptacles of a generated task at most, and things in them that it is not about.
        """
        wanted = tuple(kinds or KINDS)
        if unknown := [kind for kind in wanted if kind not in KINDS]:
            raise ValueError(f"has no kind {unknown[0]!r}; it has {', '.join(KINDS)}.")
        if places < 4 or clutter < 0 or max_steps < 1:
            raise ValueError(
                f"places is {places}, clutter {clutter} and max_steps {max_steps}; at least 4, 0 and 1 are needed."
            )
        self.root = root_of(data) if data else None
        self.kinds, self.admissible, self.max_steps = wanted, admissible, max_steps
        self.places, self.clutter = places, clutter
        self._game: Game | None = None
        self._task: dict[str, Any] = {}
        self._played: list[str] = []

    def tasks(self, split: str) -> Iterator[Task]:
        """train (endless where generated), valid_seen (rooms of training), valid_unseen (others), which test is too."""
        if split not in ("test", *SPLITS):
            raise ValueError(f"alfworld has no split {split!r}; it has test and {', '.join(SPLITS)}.")
        part = "valid_unseen" if split == "test" else split
        if self.root is not None:
            for game in official(self.root, part, self.kinds):
                told = {"file": f"{part}/{game.name}/game.tw-pddl"}
                yield Task(f"{part}/{game.name}", "alfworld", 0, told, split, (game.kind,))
            return
        for seed, (number, kind) in zip(_seeds(part), _turns(self.kinds, part == "valid_unseen"), strict=False):
            told = {"room": number, "kind": kind, "seed": seed}
            yield Task(f"{part}/{kind}-{number}-{seed}", "alfworld", seed, told, split, (kind,))

    def reset(self, task: Task) -> str:
        self._begin(dict(task.data))
        return self._told(self._running.seen)

    @tool
    def act(self, command: str) -> str:
        """Give one command.

        command: such as "go to fridge 1", "open fridge 1" or "take apple 1 from fridge 1"
        """
        if len(command) > LONGEST:
            raise ToolError(f"a command has at most {LONGEST} characters.")
        if self._running.won:
            raise ToolError("the task is done.")
        if len(self._played) >= self.max_steps:
            raise ToolError(f"all {self.max_steps} commands are used.")
        self._do(command)
        return self._told(self._running.seen)

    def answered(self, text: str) -> str:
        """Words change nothing; the episode goes on."""
        return self._told(NOTHING)

    def done(self) -> bool:
        return self._running.won

    def reward(self) -> float:
        return float(self._running.won)

    def scores(self) -> dict[str, float]:
        return {"success": float(self._running.won), "commands": float(len(self._played))}

    def state_key(self) -> str:
        return self._running.key

    def snapshot(self) -> dict[str, Any]:
        """The commands so far, and the key of the state that they lead to."""
        return {"task": self._task, "played": list(self._played), "key": self._running.key}

    def restore(self, snapshot: Any) -> str:
        """By playing the commands again. Raises where that leads elsewhere."""
        self._begin(dict(snapshot["task"]))
        for command in snapshot["played"]:
            self._do(command)
        if self._running.key != snapshot["key"]:
            raise RuntimeError(f"{self._task}: {len(self._played)} commands played again lead elsewhere.")
        return self._told(self._running.seen)

    def oracle(self, task: Task) -> Iterator[Action]:
        """The planner's commands from where the game stands."""
        for command in self._running.plan():
            yield call("act", command=command)

    def cheats(self, task: Task) -> dict[str, list[Action]]:
        """Without the command that makes clean, hot, cool or light; without the last one; with looks alone."""
        plan = self._running.plan()
        lines = {"all but the last command": plan[:-1], "looks": ["look", "inventory", "help", "examine fridge 1"]}
        plain = [command for command in plan if not command.startswith(("clean", "heat", "cool", "use"))]
        if plain != plan:
            lines["without what the task asks of the thing"] = plain
        return {name: [call("act", command=command) for command in line] for name, line in lines.items()}

    def close(self) -> None:
        if self._game is not None:
            self._game.close()
            self._game = None

    @property
    def _running(self) -> Game:
        assert self._game is not None, "no game before reset"
        return self._game

    def _begin(self, told: dict[str, Any]) -> None:
        self.close()
        if "file" in told:
            if self.root is None:
                raise ValueError(f"{told['file']} is an official game; say where they are: data=FOLDER.")
            game = json.loads((self.root / Path(told["file"])).read_text())
        else:
            game, _ = household.game(told["room"], told["kind"], told["seed"], places=self.places, clutter=self.clutter)
        self._game, self._task, self._played = Game(game), told, []

    def _do(self, command: str) -> None:
        self._running.act(command)
        self._played.append(command)

    def _told(self, seen: str) -> str:
        if not self.admissible or self._running.won:
            return seen
        return f"{seen}\nCommands: {'; '.join(self._running.possible)}."


def _seeds(part: str) -> Iterable[int]:
    """In the rooms of training, no seed is one of another split; valid_unseen has rooms of its own."""
    first = ENDLESS if part == "valid_seen" else 0
    return count(first) if part == "train" else range(first, first + HELD_OUT_TASKS)


def _turns(kinds: tuple[str, ...], unseen: bool) -> Iterator[tuple[int, str]]:
    """Rooms and kinds, in turn: each kind as often as the others, each room of it as often as its others."""
    having = {
        kind: [number for number in package.rooms(KINDS[kind]) if (number in package.UNSEEN) == unseen]
        for kind in kinds
    }
    having = {kind: [number for number in numbers if household.fits(number, kind)] for kind, numbers in having.items()}
    for place in count():
        for kind in kinds:
            yield having[kind][place % len(having[kind])], kind
