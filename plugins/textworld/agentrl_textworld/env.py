"""The environment `textworld`: a text adventure behind one tool, `act`, whose argument is a command.

The reward of a step is what it added to the game's score, as a share of the best; all of it together is 1.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import textworld

from agentrl import Action, Env, Task, ToolError, call, tool
from agentrl_textworld.games import games_in
from agentrl_textworld.words import feedback_of, refusal


class TextWorldGame(Env):
    """Reach the goal of a text adventure, one command at a time. Games are files that TextWorld made."""

    runs_in = "process"

    def __init__(self, *, games: str = "", admissible: bool = True, max_steps: int = 24) -> None:
        """games: a folder of .z8 files; those in the box where it is empty. admissible: tell what can be done here.

        max_steps: actions per episode.
        """
        if max_steps < 1:
            raise ValueError(f"max_steps is {max_steps}; it must be at least 1.")
        self.games = games_in(games)
        self.admissible = admissible
        self.max_steps = max_steps
        self._infos = textworld.EnvInfos(
            **dict.fromkeys(("feedback", "description", "objective", "score", "max_score", "won", "lost"), True),
            **dict.fromkeys(("facts", "admissible_commands", "policy_commands"), True),
        )
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._game: Any = None
        self._state: Any = None
        self._task = ""
        self._played: list[str] = []
        self._gained = 0.0

    def tasks(self, split: str) -> Iterator[Task]:
        """One a game, by name; the same game always has the same task id."""
        for name in self.games.of(split):
            yield Task(f"textworld-{name}", "textworld", 0, {"game": name}, split)

    def reset(self, task: Task) -> str:
        self._begin(str(task.data["game"]))
        objective = " ".join(self._state.objective.split())
        return f"{objective}\n{self.look()}"

    @tool
    def act(self, command: str) -> str:
        """Give one command of the game.

        command: such as "take key", "open door" or "go north"
        """
        if wrong := refusal(command):
            raise ToolError(wrong)
        if self.done():
            raise ToolError("the game is over.")
        if len(self._played) >= self.max_steps:
            raise ToolError(f"all {self.max_steps} commands are used.")
        self._do(command)
        return f"{feedback_of(self._state.feedback)}{self._possible()}"

    def answered(self, text: str) -> str:
        """Words change nothing; the game goes on."""
        return f"Nothing happens: call `act` with a command.{self._possible()}"

    def look(self) -> str:
        """Where the player is, and what can be done there."""
        return f"{feedback_of(self._state.description or '')}{self._possible()}"

    def done(self) -> bool:
        return bool(self._state.won or self._state.lost)

    def step_reward(self) -> float:
        gained, self._gained = self._gained, 0.0
        return gained

    def scores(self) -> dict[str, float]:
        return {"success": float(bool(self._state.won)), "score": self._score(), "commands": float(len(self._played))}

    def state_key(self) -> str:
        """Of all facts of the game's world, and of the score."""
        facts = sorted(map(str, self._state["_facts"]))
        told = "\n".join([*facts, str(self._state.score), str(self.done())])
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def snapshot(self) -> dict[str, Any]:
        """The commands so far, and the key of the state that they lead to."""
        return {"game": self._task, "played": list(self._played), "key": self.state_key()}

    def restore(self, snapshot: Any) -> str:
        """By playing the commands again, which is quicker than the engine's copy. Raises where that leads elsewhere."""
        self._begin(snapshot["game"])
        for command in snapshot["played"]:
            self._do(command)
        self._gained = 0.0
        if self.state_key() != snapshot["key"]:
            raise RuntimeError(f"{snapshot['game']}: {len(snapshot['played'])} commands played again lead elsewhere.")
        return self.look()

    def oracle(self, task: Task) -> Iterator[Action]:
        """The game's own winning commands from where it stands."""
        for command in list(self._state.policy_commands):
            yield call("act", command=command)

    def cheats(self, task: Task) -> dict[str, list[Action]]:
        """Without what ends it, and with commands that games know beside those of their world."""
        outside = ("tw-trace-actions", "purloin all", "gonear all", "restart", "undo", "score", "win", "end the game")
        return {
            "all but the last command": [call("act", command=command) for command in self._state.policy_commands[:-1]],
            "commands about the session": [call("act", command=command) for command in outside],
        }

    def close(self) -> None:
        if self._game is not None:
            self._game.close()
        self._game = None
        if self._scratch is not None:
            self._scratch.cleanup()

    def _begin(self, name: str) -> None:
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="agentrl-textworld-")
        file = self.games.laid_out(name, Path(self._scratch.name))
        try:
            self._game = textworld.start(str(file), self._infos)
            self._state = self._game.reset()
        except Exception as error:
            raise RuntimeError(f"TextWorld cannot start {file}: {error}. Make the game again.") from error
        self._task, self._played, self._gained = name, [], 0.0

    def _do(self, command: str) -> None:
        before = self._score()
        self._state, _, _ = self._game.step(command)
        self._played.append(command)
        self._gained += self._score() - before

    def _score(self) -> float:
        return float(self._state.score or 0) / max(1, int(self._state.max_score or 1))

    def _possible(self) -> str:
        if not self.admissible or self.done():
            return ""
        return f"\nCommands: {'; '.join(self._state.admissible_commands)}."
