"""The environment `scienceworld`: one tool, `act`, whose argument is a command in ScienceWorld's own words.

The reward of an action is what it adds to the simulator's score, in hundredths: an episode returns at most 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from scienceworld.constants import ID2TASK

from agentrl import Action, Env, EnvironmentFault, Task, ToolError, call, tool
from agentrl.errors import did_you_mean
from agentrl_scienceworld.java import WAITING, Java, java_program
from agentrl_scienceworld.simulation import UNKNOWN, Setting, Simulation
from agentrl_scienceworld.splits import SIZES, in_turns

FULL = 100
"The score of a task that is done."
SIMPLIFICATIONS = (
    "easy",
    "teleportAction",
    "selfWateringFlowerPots",
    "openContainers",
    "openDoors",
    "noElectricalAction",
)
LISTED = 40
"Commands that `list_commands` shows at once."
REHEARSALS = 4
"Ways of the simulator's own agent that the oracle tries before it gives up."
_VERBS = (
    "look around; look at X; look in X; inventory; task; go to X; open X; close X; pick up X; put down X; move X to Y; "
    "pour X into Y; dunk X into Y; mix X; activate X; deactivate X; use X on Y; connect X to Y; disconnect X; read X; "
    "eat X; flush X; focus on X; wait (10 moments); wait1 (one moment)"
)


class ScienceWorld(Env):
    """A school experiment in a text world of ten rooms: thirty kinds of tasks, 7,207 variations."""

    runs_in = "process"
    step_deadline = 120.0
    reset_deadline = 300.0
    system = (
        "You do an experiment in a house and its surroundings, one command at a time, with `act`. "
        f"Commands are: {_VERBS}. A number chooses where a command is ambiguous. "
        "'focus on' names what the task is about: only do it as the task says."
    )

    def __init__(
        self,
        *,
        tasks: list[str] | None = None,
        held_out: Literal["dev", "test"] = "test",
        most: int | None = None,
        simplifications: list[str] | None = None,
        max_steps: int = 200,
    ) -> None:
        """tasks: kinds, by name; all thirty if left out. held_out: the split that `test` stands for.

        most: variations of each kind in a split; all if left out. simplifications: the simulator's, such as ["easy"].
        max_steps: actions per episode; its own limit is 100, and some of its own ways to win take up to 180.
        """
        java_program()
        self.names = tuple(_known("task", tasks or list(SIZES), tuple(SIZES)))
        self.simplifications = tuple(_known("simplification", simplifications or [], SIMPLIFICATIONS))
        if most is not None and most < 1:
            raise ValueError(f"has most {most}; at least 1 variation of each kind is needed.")
        if "noElectricalAction" in self.simplifications:
            barred = [name for name in self.names if "power-component" in name or "conductivity" in name]
            if barred:
                raise ValueError(f"cannot be won with noElectricalAction in {', '.join(barred)}; drop one of them.")
        self.held_out = held_out
        self.most = most
        self.max_steps = max_steps
        self._java: Java | None = None
        self._world: Simulation | None = None
        self._setting = Setting(self.names[0], 0)
        self._played: list[str] = []
        self._score = self._told = 0
        self._over = False
        self._key = ""

    def tasks(self, split: str) -> Iterator[Task]:
        """The kinds in turns. train: ScienceWorld's train; test: its test (or dev, see `held_out`). Both end."""
        if split not in ("train", "test"):
            raise ValueError(f"there is no split {split!r}; there are 'train' and 'test'.")
        for name, variation in in_turns(self.names, "train" if split == "train" else self.held_out, self.most):
            yield Task(f"{name}-{variation}", "scienceworld", variation, {"task": name, "variation": variation}, split)

    def reset(self, task: Task) -> str:
        self._setting = Setting(str(task.data["task"]), int(task.data["variation"]), self.simplifications)
        seen = self._begin()
        return f"{self.world.task}\n\n{seen.rstrip()}"

    @tool
    def act(self, command: str) -> str:
        """Do one command and see what happens.

        command: such as "open door to kitchen", "pick up metal pot" or "focus on substance in metal pot".
        """
        said = self._do(command)
        if said == UNKNOWN:
            raise ToolError(f"{UNKNOWN} Name things as they were shown.")
        return said

    def answered(self, text: str) -> str:
        """Words change nothing; the episode goes on."""
        return "Nothing happened: only `act` does something."

    def done(self) -> bool:
        return self._over

    def step_reward(self) -> float:
        gained, self._told = self._score - self._told, self._score
        return gained / FULL

    def scores(self) -> dict[str, float]:
        return {"success": float(self._score >= FULL), "score": self._score / FULL}

    def state_key(self) -> str:
        # A few hundredths of a second, spared where nothing happened.
        self._key = self._key or self.world.key()
        return self._key

    def snapshot(self) -> dict[str, Any]:
        """The commands so far, and the key of where they lead: the simulator itself keeps no state."""
        return {"played": list(self._played), "key": self.state_key()}

    def restore(self, snapshot: Any) -> None:
        """Raises `EnvironmentFault` where the same commands lead elsewhere."""
        self._begin()
        for command in snapshot["played"]:
            self._do(command)
        self._told = self._score
        if (key := self.state_key()) != snapshot["key"]:
            raise EnvironmentFault(
                f"{self._setting} was played again, and {len(self._played)} commands led to the state {key} instead of "
                f"{snapshot['key']}: the snapshot is of other options or of another version."
            )

    def oracle(self, task: Task) -> Iterable[Action]:
        """The simulator's own agent, rehearsed in a second world: what that refused is left out."""
        for command in self._rehearsed():
            yield call("act", command=command)

    def cheats(self, task: Task) -> Mapping[str, Iterable[Action]]:
        return {"wait for it": [call("act", command="wait")] * self.max_steps}

    def close(self) -> None:
        java, self._java, self._world = self._java, None, None
        if java is not None:
            WAITING.give_back(java)

    @property
    def world(self) -> Simulation:
        if self._world is None:
            raise EnvironmentFault("there is no world: call `reset` first.")
        return self._world

    def _begin(self) -> str:
        if self._java is None:
            self._java = WAITING.take()
            self._world = Simulation(self._java)
        seen = self.world.load(self._setting)
        self._played, self._score, self._told, self._over, self._key = [], 0, 0, False, ""
        return seen

    def _do(self, command: str) -> str:
        if self._over:
            raise ToolError("it is over; no command changes anything.")
        said = self.world.act(command)
        if said == UNKNOWN:
            return said
        self._played.append(command)
        self._key = ""
        self._score, self._over = self.world.score, self.world.over
        return said

    def _rehearsed(self) -> list[str]:
        if self._java is None:
            raise EnvironmentFault("there is no world: call `reset` first.")
        second, reached = Simulation(self._java), []
        for _ in range(REHEARSALS):
            way = []
            gold = second.gold(self._setting)
            second.load(self._setting)
            for command in gold:
                if second.act(command) != UNKNOWN:
                    way.append(command)
                if second.over:
                    break
            reached.append(second.score)
            if second.score >= FULL and len(way) <= self.max_steps:
                return way
        raise EnvironmentFault(
            f"ScienceWorld's own agent does not win {self._setting} within {self.max_steps} actions; "
            f"its {REHEARSALS} tries scored {reached}."
        )


class ScienceWorldCommands(ScienceWorld):
    """ScienceWorld with a second tool, which lists what can be done; it takes no time in the world."""

    @tool
    def list_commands(self, containing: str) -> str:
        """List commands that do something here, short ones first.

        containing: a word that they contain, such as "door" or "pick up".
        """
        word = containing.strip().lower()
        found = [command for command in self.world.commands() if word in command.lower()]
        found.sort(key=len)
        if not found:
            return f"No command with {containing!r} does anything here."
        more = f"\n... and {len(found) - LISTED} more" if len(found) > LISTED else ""
        return "\n".join(found[:LISTED]) + more


def _known(what: str, names: list[str], allowed: tuple[str, ...]) -> list[str]:
    """Raises `ValueError` for one that is not there, or is there twice. Numbers such as "1-1" are the paper's."""
    found = [ID2TASK.get(name, name) for name in names]
    for name in found:
        if name not in allowed:
            near = did_you_mean(name, allowed) or f" There are: {', '.join(allowed)}."
            raise ValueError(f"has no {what} {name!r}.{near}")
    if len(set(found)) < len(found):
        raise ValueError(f"has a {what} twice in {names}; name each once.")
    return found
