"""The work of the comparison with TRL: one request, one tool call, a graded reward.

The reward is a pure function of the sampled text, so that both sides are paid alike; it is nearly never equal within a
group, so that no side gets away without an update.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Iterator, Sequence
from itertools import count, islice

from agentrl import Action, Env, Task, call, tool
from agentrl.environment import adapt
from agentrl.protocols import Environment, Renderer
from agentrl.types import Trajectory

PROMPTS, SAMPLES, NEW_TOKENS, RANK, ALPHA = 6, 8, 26, 16, 32
LEARNING_RATE = 1e-5
_NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana", "Ivo", "Jana", "Kai", "Lea")
_CITIES = ("Lisbon", "Oslo", "Prague", "Riga", "Turin", "Vienna", "Zagreb")


class OneCall(Env):
    """Book a room with one tool call."""

    max_steps = 1
    runs_in = "loop"
    system = "Answer with one tool call."

    def tasks(self, split: str) -> Iterator[Task]:
        for seed in count():
            data = {"person": _NAMES[seed % len(_NAMES)], "city": _CITIES[seed % len(_CITIES)]}
            yield Task(f"one_call-{seed}", "one_call", seed, data, split)

    def reset(self, task: Task) -> str:
        return f"Book a room in {task.data['city']} for {task.data['person']}."

    @tool
    def book(self, person: str, city: str) -> str:
        """Book a room for a person."""
        return "booked"

    def reward(self) -> float:
        """Nothing: `Likeness` pays, for the text alone."""
        return 0.0

    def oracle(self, task: Task) -> Sequence[Action]:
        return [call("book", **task.data)]


class Likeness:
    """The reward as our rollout engine asks for it."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer

    async def score(self, trajectory: Trajectory) -> Sequence[float]:
        return [likeness(self._renderer.decode(step.tokens), wanted(trajectory.task)) for step in trajectory.steps]


def environment() -> Environment:
    return adapt(OneCall())


def prompts(renderer: Renderer, number: int) -> list[dict[str, str]]:
    """The prompts of our episodes as text that TRL's tokenizer makes the same ids of; in the order of our sampler."""

    async def render() -> list[dict[str, str]]:
        rows, world = [], environment()
        for task in islice(world.tasks("train"), number):
            shown = await world.reset(task)
            text = renderer.decode(renderer.render(shown.messages, world.tools()))
            rows.append({"prompt": text, "target": wanted(task)})
        return rows

    return asyncio.run(render())


def wanted(task: Task) -> str:
    return f"book {task.data['person']} {task.data['city']}"


def likeness(text: str, target: str) -> float:
    """From 0 to 1: the share of characters that agree in order."""
    return difflib.SequenceMatcher(None, text, target, autojunk=False).ratio()
