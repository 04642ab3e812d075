"""Every advantage rule on a table of logits: what credit alone does, with the controls that could explain a gap away.

    PYTHONPATH=benchmarks python -m learning.tabular [--seeds 10] [--only TEXT]

The world is keydoor. What a policy sees (18 texts) chooses a row of 6 logits; it starts as the environment's
demonstrator, who walks right 40 % of the time. Every method is the preset that a recipe names: it makes the columns,
advantages, weights and denominators, and the table takes the gradient of `sum(scale weight advantage log pi)`, which
is that of every objective where a batch is trained on once and as it was sampled. Each batch is 8 new tasks x 8
episodes, and one update of Adam; its success is therefore that on tasks never seen. One run is one seed.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from keydoor.world import DIRECTIONS, Layout, World

from agentrl.batch import TrainingBatch
from agentrl.credit.anchors import HistoryAnchors, UniqueAnchors
from agentrl.method import CLIPPED, Method
from agentrl.plugins import Host, load_host
from agentrl.types import Action, Group, Message, Observation, Status, Step, Task, Trajectory
from learning.cells import Cell, Measured, blocks, fill, grid, options

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
WORDS = (*DIRECTIONS, "take", "open")
SKILL = 0.4
BLOCK = 5


@dataclass(frozen=True, slots=True)
class Setting:
    size: int
    horizon: int
    learning_rate: float = 0.1
    tasks: int = 8
    members: int = 8
    batches: int = 30


SETTINGS = {
    "tight": Setting(4, 16),
    "loose": Setting(6, 40),
    "loose, lr 0.03": Setting(6, 40, learning_rate=0.03),
    "loose, lr 0.3": Setting(6, 40, learning_rate=0.3),
}


def preset(name: str, **chosen: Any) -> Callable[[Host], Method]:
    return lambda host: host.create("methods", name, chosen, given={"host": host})


def gigpo_with(shaping: HistoryAnchors | UniqueAnchors) -> Callable[[Host], Method]:
    return lambda host: replace(preset("gigpo")(host), shapings=(shaping,))


CRITIC = {"gamma": 0.95, "trace": 0.95}
METHODS: dict[str, Callable[[Host], Method]] = {
    "grpo": preset("grpo"),
    "grpo, return discounted": preset("grpo", gamma=0.95),
    "grpo, no deviation": preset("grpo", scale="none"),
    "dr_grpo": preset("dr_grpo", length=40),
    "rloo": preset("rloo"),
    "lite_ppo": preset("lite_ppo"),
    "dapo": preset("dapo"),
    "dart": preset("dart"),
    "opo": preset("opo"),
    "maxrl": preset("maxrl"),
    "gpg": preset("gpg"),
    "bnpo": preset("bnpo"),
    "reinforce_plus_plus": preset("reinforce_plus_plus"),
    "reinforce_plus_plus, gamma 0.95": preset("reinforce_plus_plus", gamma=0.95),
    "reinforce_plus_plus_baseline": preset("reinforce_plus_plus_baseline"),
    "igpo, gamma 0.95": preset("igpo", gamma=0.95),
    "eapo": preset("eapo"),
    "step_return": preset("step_return"),
    "steppo, a table of values": preset("steppo", critic=CRITIC),
    "anchor term alone": preset("custom", credit=[{"name": "anchor"}]),
    "gigpo": preset("gigpo"),
    "gigpo, no deviation": preset("gigpo", scale="none"),
    "gigpo, gamma 1": preset("gigpo", gamma=1.0),
    "gigpo, anchors are whole histories": gigpo_with(HistoryAnchors()),
    "gigpo, unique anchors": gigpo_with(UniqueAnchors()),
    "gigpo_similar": preset("gigpo_similar"),
    "hgpo": preset("hgpo"),
}
SWEPT = ("grpo", "grpo, return discounted", "step_return", "gigpo")
GRID = {name: tuple(METHODS) if "lr" not in name else SWEPT for name in SETTINGS}


class Table:
    """Logits by what is seen, trained with Adam; and the value of each text, for methods with a critic."""

    def __init__(self, learning_rate: float, first: Mapping[str, Doubles]) -> None:
        """`first` has the chances of the words that the policy starts with, for every text that it may see."""
        self.rows = {seen: row for row, seen in enumerate(first)}
        self.logits = np.log(list(first.values()))
        self.values = np.zeros(len(self.rows))
        self._first = self._second = np.zeros_like(self.logits)
        self._rate, self._updates = learning_rate, 0

    def chances(self) -> Doubles:
        found: Doubles = np.exp(self.logits - self.logits.max(1, keepdims=True))
        return found / found.sum(1, keepdims=True)

    def gradient(self, row: Ints, action: Ints, weight: Doubles) -> Doubles:
        """Of `sum(weight log pi(action | row))` by the logits; one entry of each argument per sampled token."""
        found = np.zeros_like(self.logits)
        np.add.at(found, (row, action), weight)
        return found - np.bincount(row, weight, len(self.logits))[:, None] * self.chances()

    def ascend(self, gradient: Doubles) -> None:
        self._updates += 1
        self._first = 0.9 * self._first + 0.1 * gradient
        self._second = 0.95 * self._second + 0.05 * gradient**2
        root = np.sqrt(self._second / (1 - 0.95**self._updates))
        self.logits = self.logits + self._rate * (self._first / (1 - 0.9**self._updates)) / (root + 1e-8)

    def fit_values(self, row: Ints, targets: Doubles) -> None:
        seen = np.bincount(row, minlength=len(self.values))
        means = np.bincount(row, targets, len(self.values)) / np.maximum(seen, 1)
        self.values = np.where(seen > 0, self.values + 0.5 * (means - self.values), self.values)


def sights() -> list[str]:
    """Every text of a world without walls: what is sought, and where it lies from here."""
    places = [" ".join(part for part in pair if part) for pair in product(("", "north", "south"), ("", "west", "east"))]
    return [f"{thing} {place or 'here'}" for thing in ("key", "door") for place in places]


def beginner() -> dict[str, Doubles]:
    return {seen: demonstrator(seen) for seen in sights()}


def demonstrator(seen: str) -> Doubles:
    """Chances of the words: right moves with probability `SKILL`, else anything, as `KeyDoor.demonstrate`."""
    right = np.array([word in seen.split() for word in WORDS], np.float64)
    anything = np.full(len(WORDS), 1 / len(WORDS))
    found: Doubles = anything if not right.any() else SKILL * right / right.sum() + (1 - SKILL) * anything
    return found


class Player:
    """Plays groups with a table, one sampled token a step."""

    def __init__(self, setting: Setting, table: Table, seed: int) -> None:
        self._setting, self._table, self._rng = setting, table, np.random.default_rng(seed)
        self._tokens = [np.array([place], np.int32) for place in range(len(WORDS))]
        self._version, self._prompt = np.zeros(1, np.int32), np.zeros(0, np.int32)
        self._shown = {seen: (Message("user", seen),) for seen in table.rows}
        self._cumulative: list[list[float]] = []
        self._logprobs: list[list[Any]] = []
        self._count = 0

    def groups(self) -> list[Group]:
        chances = self._table.chances()
        self._cumulative = np.cumsum(chances, 1).tolist()
        self._logprobs = [np.split(row, len(WORDS)) for row in np.log(chances).astype(np.float32)]
        return [self._group() for _ in range(self._setting.tasks)]

    def _group(self) -> Group:
        self._count += 1
        while True:
            layout = Layout.from_seed(int(self._rng.integers(1 << 40)), self._setting.size, walls=False)
            if layout.shortest <= self._setting.horizon:
                break
        task, name = Task(f"task-{self._count}", "keydoor"), f"g{self._count}"
        members = (self._episode(task, name, World(layout), f"{name}-{n}") for n in range(self._setting.members))
        return Group(name, task, tuple(members))

    def _episode(self, task: Task, group: str, world: World, name: str) -> Trajectory:
        steps: list[Step] = []
        horizon, before = self._setting.horizon, None
        dice = self._rng.random(horizon).tolist()
        while len(steps) < horizon and not world.opened:
            seen, key = world.describe(), world.key_of_state()
            row = self._table.rows[seen]
            taken = min(bisect(self._cumulative[row], dice[len(steps)]), len(WORDS) - 1)
            act(world, WORDS[taken])
            step = Step(
                id=f"{name}.{len(steps)}",
                index=len(steps),
                previous=before,
                context=before,
                prompt=self._prompt,
                tokens=self._tokens[taken],
                logprobs=self._logprobs[row][taken],
                versions=self._version,
                action=_SILENT,
                observation=Observation(self._shown[seen], state_key=key),
                reward=float(world.opened),
                terminated=world.opened,
                truncated=not world.opened and len(steps) == horizon - 1,
            )
            before = step.id
            steps.append(step)
        status = Status.OK if world.opened else Status.TRUNCATED
        return Trajectory(name, task, group, tuple(steps), status)


_SILENT = Action()


def act(world: World, word: str) -> None:
    if word == "take":
        world.take()
    elif word == "open":
        world.open()
    else:
        world.go(word)  # type: ignore[arg-type]


def learn(setting: Setting, method: Method, seed: int) -> Measured:
    """Success, steps an episode and steps a success of the batches, each before its update, in blocks of five."""
    table = Table(setting.learning_rate, beginner())
    player = Player(setting, table, seed)
    success, steps, to_win = [], [], []
    for _ in range(setting.batches):
        groups = player.groups()
        played = [trajectory for group in groups for trajectory in group.trajectories]
        won = [len(trajectory.steps) for trajectory in played if trajectory.success]
        success.append(len(won) / len(played))
        steps.append(sum(len(trajectory.steps) for trajectory in played) / len(played))
        to_win.append(sum(won) / len(won) if won else float(setting.horizon))
        update(table, method, groups)
    curves = {"success": success, "steps": steps, "steps_to_win": to_win}
    return {name: blocks(values, BLOCK) for name, values in curves.items()}


def update(table: Table, method: Method, groups: Sequence[Group]) -> None:
    """As `runs/run.py` does it: curation, columns, values where there is a critic, credit, then the update."""
    for curation in method.curations:
        groups = curation(groups)
    batch = replace(method, curations=()).columns(groups)
    steps = (step for group in groups for trajectory in group.trajectories for step in trajectory.steps)
    seen = np.array([table.rows[step.observation.messages[0].content] for step in steps], np.int64)
    if method.critic is not None:
        batch = replace(batch, table=replace(batch.table, value=table.values[seen]))
    batch = method.assign(batch)
    if batch.has_signal:
        row, action = seen[batch.columns.row], batch.columns.token.astype(np.int64)
        weight = (batch.advantage * batch.weight * batch.scale).astype(np.float64)
        logprobs = np.log(table.chances()[row, action])
        table.ascend(table.gradient(row, action, weight * slope(logprobs, batch)))
    if method.critic is not None:
        table.fit_values(seen, method.targets(batch.table))


def slope(logprobs: Doubles, batch: TrainingBatch) -> Doubles:
    """Of PPO's clipped ratio, with the numbers of `CLIPPED`: 1 for what the policy itself sampled just now."""
    apart = logprobs - batch.columns.behavior_logprobs
    # The sampler's numbers are float32.
    ratio = np.exp(np.where(np.abs(apart) < 1e-5, 0.0, apart))
    over = np.where(batch.advantage > 0, ratio > 1 + CLIPPED.high, ratio < 1 - CLIPPED.low)
    return np.where(over, 0.0, ratio)


def main() -> None:
    chosen = options(__doc__, name="tabular", seeds=10).parse_args()
    host = load_host()

    def run(cell: Cell) -> Measured:
        return learn(SETTINGS[cell.setting], METHODS[cell.method](host), cell.seed)

    fill(grid(GRID, chosen.seeds), run, chosen)


if __name__ == "__main__":
    main()
