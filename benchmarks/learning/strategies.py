"""Where episodes come from: branching, replay, retries and guidance on a chain of tool calls, with their controls.

    PYTHONPATH=benchmarks python -m learning.strategies [--seeds 5] [--only TEXT]

A policy calls one of six tools at each place of a chain, and is paid 1 at the end if every call was right. It starts
sure of the right tool (96 %) at all places but the uncertain ones, where it knows nothing. Groups come from the
library's own rollout engine and strategies, credit from its methods, and a table of logits learns as in
`learning.tabular`. `success` is exact (the product of the right tools' chances), so that no choice of branches or
helped episodes can flatter it.

"equal tokens" samples as many tokens a group as eight episodes have. "equal rows" has eight trajectories a group, what
a trainer pays for that computes shared beginnings once per branch. A table cannot reflect, so a retry leaves from a
step that the dice choose; and it cannot read, so that it follows nine of ten hints of the guidance is an assumption.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from agentrl.method import Method
from agentrl.plugins import load_host
from agentrl.protocols import GenerateRequest, RolloutStrategy
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.forking import demands_of
from agentrl.rollout.limits import EpisodeLimits
from agentrl.rollout.strategies.branching import EntropyBranching, RandomBranching
from agentrl.rollout.strategies.guidance import Guided
from agentrl.rollout.strategies.independent import Independent
from agentrl.rollout.strategies.reflection import RetryFromStep
from agentrl.rollout.strategies.rounds import sampled
from agentrl.rollout.tokens import TokenPlayer
from agentrl.types import (
    Action,
    Completion,
    Finish,
    Group,
    Message,
    Observation,
    StepResult,
    Task,
    TokenIds,
    ToolSpec,
    token_ids,
)
from learning.cells import Cell, Measured, blocks, fill, grid, options
from learning.tabular import Doubles, Table, update

TOOLS, SURE, HEEDED = 6, 0.96, 0.9
TASKS, MEMBERS, MOST, BATCHES, RATE, BLOCK = 8, 8, 64, 30, 0.1, 5
ASKED, HINT, PLACE = 99, 100, 1000
"Tokens: a question, the tools of a hint, the places; the tools themselves are 0 to 5."


@dataclass(frozen=True, slots=True)
class Setting:
    length: int
    uncertain: int


@dataclass(frozen=True, slots=True)
class Arm:
    strategy: RolloutStrategy
    members: int = MEMBERS
    "Trajectories of a group, at most."
    method: str = "grpo"


SETTINGS = {"two uncertain calls of six": Setting(6, 2), "three uncertain calls of six": Setting(6, 3)}
HALF, TOKENS = MEMBERS // 2, 6 * MEMBERS
RETRIED = 10
"Half of them retries, which sample half of an episode: about the tokens of eight episodes."
SHARP = EntropyBranching(initial=HALF, top=TOOLS, chance=0.0, weight=1.0)
ARMS: dict[str, Arm] = {
    "independent": Arm(Independent()),
    "random branching, equal tokens": Arm(RandomBranching(initial=HALF, tokens=TOKENS), MOST),
    "entropy branching, equal tokens": Arm(EntropyBranching(initial=HALF, top=TOOLS, tokens=TOKENS), MOST),
    "entropy branching, sharp, equal tokens": Arm(
        EntropyBranching(initial=HALF, top=TOOLS, chance=0.0, weight=1.0, tokens=TOKENS), MOST
    ),
    "random branching, equal rows": Arm(RandomBranching(initial=HALF)),
    "entropy branching, sharp, equal rows": Arm(SHARP),
    "replay of a success": Arm(Independent(), method="arpo_replay"),
    "retry from a random step, r3l": Arm(RetryFromStep(), RETRIED, "r3l"),
    "retry from a random step, grpo": Arm(RetryFromStep(), RETRIED),
    "guided where all fail": Arm(Guided(shares=(0.5,))),
    "guided in stages": Arm(Guided()),
}
FEW = ("independent", *(name for name in ARMS if "branching" in name))
SPARSE = ("independent", *(name for name in ARMS if name not in FEW))
GRID = dict(zip(SETTINGS, (FEW, SPARSE), strict=True))


class Chain:
    """A world: the right tool at every place, and whether all calls so far were right. Wrong calls are not told."""

    def __init__(self, answers: Sequence[int]) -> None:
        self._answers, self._at, self._right = answers, 0, True

    def tasks(self, split: str) -> Iterable[Task]:
        return (Task(f"chain-{number}", "chain", split=split) for number in count())

    def tools(self) -> Sequence[ToolSpec]:
        return ()

    def oracle(self, task: Task) -> Iterable[Action]:
        return (Action(str(answer)) for answer in self._answers)

    async def reset(self, task: Task) -> Observation:
        self._at, self._right = 0, True
        return self._look()

    async def step(self, action: Action) -> StepResult:
        self._right &= int(action.text) == self._answers[self._at]
        self._at += 1
        over = self._at == len(self._answers)
        return StepResult(self._look(), reward=float(over and self._right), terminated=over)

    async def snapshot(self) -> list[int]:
        return [self._at, self._right]

    async def restore(self, snapshot: list[int]) -> Observation:
        self._at, self._right = snapshot[0], bool(snapshot[1])
        return self._look()

    async def close(self) -> None: ...

    def _look(self) -> Observation:
        return Observation((Message("user", str(self._at)),), state_key=f"{self._at} {self._right}")


class Places:
    """A renderer: a place is one token, behind those of a hint; a tool is one token."""

    name = "places"
    stop_token_ids = ()

    def render(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> TokenIds:
        found: list[int] = []
        for message in messages:
            if message.role == "user":
                found += self._user(message.content)
            elif message.role == "assistant":
                found.append(int(message.content))
        return token_ids(found)

    def extend(self, context: TokenIds, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> TokenIds:
        return self.render(messages, tools)

    def parse(self, tokens: TokenIds, tools: Sequence[ToolSpec]) -> Action:
        return Action(str(tokens[0]))

    def action_tokens(self, action: Action, tools: Sequence[ToolSpec] = ()) -> TokenIds:
        return token_ids([int(action.text)])

    def decode(self, tokens: TokenIds) -> str:
        return " ".join(map(str, tokens))

    def _user(self, text: str) -> list[int]:
        place, *given = text.split("\n\n")
        if not place.isdigit():
            return [ASKED]
        return [HINT + int(tool) for line in given for tool in re.findall(r"\d", line)] + [PLACE + int(place)]


class TableSampler:
    """An engine: the row of the last place, with all six tools as the alternatives; a hint for the place is heeded."""

    max_context = 4096
    version = 0

    def __init__(self, table: Table) -> None:
        self._chances = table.chances()

    async def generate(self, request: GenerateRequest) -> Completion:
        *before, last = request.tokens.tolist()
        row = np.full(TOOLS, 1 / TOOLS) if last == ASKED else self._chances[last - PLACE]
        hints = [token - HINT for token in before if HINT <= token < PLACE]
        if 0 <= last - PLACE < len(hints):
            row = (1 - HEEDED) * row + HEEDED * np.eye(TOOLS)[hints[last - PLACE]]
        taken = int(np.random.default_rng(request.sampling.seed).choice(TOOLS, p=row / row.sum()))
        logprobs = np.log(row).astype(np.float32)
        told = ({tool: float(logprobs[tool]) for tool in range(TOOLS)},) if request.sampling.top_logprobs else ()
        sampled_one = token_ids([taken])
        return Completion(
            sampled_one, logprobs[taken : taken + 1], np.zeros(1, np.int32), Finish.STOP, top_logprobs=told
        )

    async def forget(self, session: str) -> None: ...


def drawn(setting: Setting, seed: int) -> tuple[Table, tuple[int, ...]]:
    """The first policy and the right tools. The first place is a sure one: nothing is shared before it."""
    rng = np.random.default_rng(seed)
    answers = tuple(int(tool) for tool in rng.integers(0, TOOLS, setting.length))
    unknown = set((1 + rng.permutation(setting.length - 1)[: setting.uncertain]).tolist())
    first: dict[str, Doubles] = {}
    for place, answer in enumerate(answers):
        sure = np.where(np.arange(TOOLS) == answer, SURE, (1 - SURE) / (TOOLS - 1))
        first[str(place)] = np.full(TOOLS, 1 / TOOLS) if place in unknown else sure
    return Table(RATE, first), answers


async def learn(setting: Setting, arm: Arm, method: Method, seed: int, batches: int = BATCHES) -> Measured:
    table, answers = drawn(setting, seed)
    limits = EpisodeLimits(max_steps=setting.length, max_tokens=1, max_context=TableSampler.max_context)
    told: dict[str, list[float]] = {"success": [], "tokens": [], "trajectories": []}
    for batch in range(batches):
        told["success"].append(float(table.chances()[np.arange(setting.length), list(answers)].prod()))
        player = TokenPlayer(TableSampler(table), Places())
        async with RolloutEngine(lambda: Chain(answers), player, limits=limits, seed=seed) as rollout:
            names = [f"b{batch}-{number}" for number in range(TASKS)]
            groups = await asyncio.gather(*(play(arm, rollout, name) for name in names))
        told["tokens"].append(float(np.mean([sampled(group.trajectories) for group in groups])))
        told["trajectories"].append(float(np.mean([len(group.trajectories) for group in groups])))
        update(table, method, groups)
    return {name: blocks(values, BLOCK) for name, values in told.items()}


async def play(arm: Arm, rollout: RolloutEngine, name: str) -> Group:
    """All groups are of one task, so that a success can come back."""
    task = Task("chain", "chain")
    played = await arm.strategy.run(task, arm.members, rollout.group(name, demands=demands_of(arm.strategy)))
    return Group(name, task, tuple(played))


def main() -> None:
    chosen = options(__doc__, name="strategies", seeds=5).parse_args()
    host = load_host()

    def run(cell: Cell) -> Measured:
        arm = ARMS[cell.method]
        method = host.create("methods", arm.method, {}, given={"host": host})
        return asyncio.run(learn(SETTINGS[cell.setting], arm, method, cell.seed))

    fill(grid(GRID, chosen.seeds), run, chosen)


if __name__ == "__main__":
    main()
