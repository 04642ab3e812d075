"""The environment `gymnasium`: one tool, `act`, whose argument is the name of an action.

A task is a seed. Chance comes from that seed alone, so that the same actions lead to the same episode.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import gymnasium
from gymnasium.spaces import Discrete

from agentrl import Action, Env, Task, ToolError, call, tool
from agentrl_gymnasium.oracle import Table, best_actions, by_chance, shortest_win
from agentrl_gymnasium.words import first_words, in_words, plain_terminal

TEST_TASKS = 128
FIRST_TEST_SEED = 1_000_000
NAMES: Mapping[str, Sequence[str]] = {
    "FrozenLake": ("left", "down", "right", "up"),
    "CliffWalking": ("up", "right", "down", "left"),
    "Taxi": ("south", "north", "east", "west", "pick up", "drop off"),
    "Blackjack": ("stick", "hit"),
}
"Of the actions of the toy-text worlds, by the beginning of their id."
DRAWN = ("FrozenLake", "CliffWalking", "Taxi")
"Worlds that draw themselves as text."


class GymnasiumText(Env):
    """A Gymnasium world with discrete actions; the reward is the world's own, step by step."""

    def __init__(
        self,
        *,
        id: str = "FrozenLake-v1",
        options: dict[str, Any] | None = None,
        actions: list[str] | None = None,
        max_steps: int = 64,
        wins_above: float = 0.0,
    ) -> None:
        """id: of the registered world. options: passed to `gymnasium.make`. actions: names, in the world's order.

        max_steps: actions per episode. wins_above: an episode that ends by itself with a higher return is a success.
        """
        self.id = id
        given: dict[str, Any] = dict(options or {})
        if self.id.startswith(DRAWN):
            given.setdefault("render_mode", "ansi")
        try:
            self.world: Any = gymnasium.make(id, max_episode_steps=max_steps, **given)
        except (gymnasium.error.Error, ImportError, TypeError, ValueError) as error:
            raise ValueError(f"has id {id!r} and options {given}, of which no world can be made: {error}") from error
        if not isinstance(self.world.action_space, Discrete):
            space = self.world.action_space
            raise ValueError(f"has id {id!r} with actions {space}; only Discrete ones have names to call.")
        self.max_steps = max_steps
        self.wins_above = wins_above
        self.actions = self._named(actions)
        self.system = f"{self.introduction()} The actions are: {', '.join(self.actions)}."
        self._played: list[int] = []
        self._seed = 0
        self._last: Any = None
        self._reward = self._return = 0.0
        self._over = self._cut = False

    def introduction(self) -> str:
        """The world's name, and what its own documentation says first: what it is about."""
        told = first_words(type(self.world.unwrapped).__doc__)
        return f"You act in {self.id.split('-')[0]}, one action at a time. {told}".rstrip()

    def tasks(self, split: str) -> Iterator[Task]:
        """train: endless. test: 128 seeds that no training task has."""
        if split not in ("train", "test"):
            raise ValueError(f"there is no split {split!r}; there are 'train' and 'test'.")
        seeds = range(FIRST_TEST_SEED, FIRST_TEST_SEED + TEST_TASKS) if split == "test" else count()
        for seed in seeds:
            yield Task(f"{self.id}-{split}-{seed}", self.id, seed, split=split)

    def reset(self, task: Task) -> str:
        self._seed, self._played = task.seed, []
        self._last, _ = self.world.reset(seed=task.seed)
        self._reward = self._return = 0.0
        self._over = self._cut = False
        return self.look()

    @tool
    def act(self, action: str) -> str:
        """Do one action.

        action: its name.
        """
        if action not in self.actions:
            raise ToolError(f"there is no action {action!r}. Actions: {', '.join(self.actions)}.")
        self._do(self.actions.index(action))
        return self.look()

    def answered(self, text: str) -> str:
        """Words change nothing; the episode goes on."""
        self._reward = 0.0
        return self.look()

    def look(self) -> str:
        """What the agent is shown."""
        if self.world.render_mode == "ansi":
            return plain_terminal(self.world.render())
        return in_words(self._last)

    def done(self) -> bool:
        return self._over or self._cut

    def step_reward(self) -> float:
        reward, self._reward = self._reward, 0.0
        return reward

    def scores(self) -> dict[str, float]:
        return {"success": float(self._over and self._return > self.wins_above), "return": self._return}

    def state_key(self) -> str | None:
        """Where the observation is the whole state (a number, or a tuple of them); otherwise there is none."""
        hashable = isinstance(self._last, int | tuple) or getattr(self._last, "ndim", None) == 0
        return f"{self.id} {self._last}" if hashable else None

    def snapshot(self) -> dict[str, Any]:
        """The actions so far: with the task's seed they lead here again."""
        return {"seed": self._seed, "played": list(self._played)}

    def restore(self, snapshot: Any) -> None:
        self._last, _ = self.world.reset(seed=snapshot["seed"])
        self._played, self._return, self._over, self._cut = [], 0.0, False, False
        for action in snapshot["played"]:
            self._do(action)
        self._reward = 0.0

    def oracle(self, task: Task) -> Iterable[Action]:
        """By the world's own transition table; raises `NotImplementedError` where it has none.

        Where chance has a part in it, by a search that sees what the task's seed will bring: it wins what can be won.
        """
        table = getattr(self.world.unwrapped, "P", None)
        if table is None:
            return super().oracle(task)
        if not by_chance(table):
            return self._best(table)
        actions = range(int(self.world.action_space.n))
        found = shortest_win(self.world, actions, _state_and_time, most=64 * len(table))
        return [call("act", action=self.actions[action]) for action in found]

    def demonstrate(self, task: Task, rng: random.Random) -> Iterable[Action]:
        """By the table, without a look at what chance will bring: what a model can learn. Else as the oracle."""
        table = getattr(self.world.unwrapped, "P", None)
        return self.oracle(task) if table is None else self._best(table)

    def close(self) -> None:
        self.world.close()

    def _best(self, table: Table) -> Iterator[Action]:
        best = best_actions(table)
        return self._by(lambda: best[int(self._last)])

    def _by(self, choose: Callable[[], int]) -> Iterator[Action]:
        while not self._over:
            yield call("act", action=self.actions[choose()])

    def _do(self, action: int) -> None:
        if self._over or self._cut or len(self._played) >= self.max_steps:
            raise ToolError("it is over; no action changes anything.")
        self._played.append(action)
        self._last, reward, terminated, truncated, _ = self.world.step(action)
        self._reward = float(reward)
        self._return += self._reward
        self._over = bool(terminated)
        # The limit of `max_steps` is told as such by who plays; one of the world's own ends the episode here.
        self._cut = bool(truncated) and len(self._played) < self.max_steps

    def _named(self, actions: list[str] | None) -> tuple[str, ...]:
        """Raises `ValueError` where the names are not as many as the actions, or not all different."""
        size = int(self.world.action_space.n)
        found = actions or self.action_names() or [str(index) for index in range(size)]
        if len(found) != size or len(set(found)) != size:
            raise ValueError(f"has id {self.id!r} with {size} actions, named {list(found)}; name each once.")
        return tuple(found)

    def action_names(self) -> Sequence[str]:
        return next((names for prefix, names in NAMES.items() if self.id.startswith(prefix)), ())


def _state_and_time(world: Any) -> str:
    """Every action draws once, so that equal states after as many actions have the same chance ahead."""
    return f"{world.unwrapped.s} {world.get_wrapper_attr('_elapsed_steps')}"
