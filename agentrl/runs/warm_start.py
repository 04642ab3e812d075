"""Demonstrations, and what a policy learns from them before it acts for itself.

Demonstrations come from training tasks only, by the environment's own demonstrator; nothing held out is shown.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from agentrl.errors import ConfigError
from agentrl.protocols import ContextPolicy, Environment, Renderer
from agentrl.rollout.demonstrate import play
from agentrl.store.records import read_trajectories
from agentrl.types import Action, Message, Status, Step, Task, ToolSpec, Trajectory

VOCABULARY_EPISODES = 400
"Demonstrations whose words make the vocabulary of a model from scratch."


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """Expert trajectories, and how good the expert was."""

    trajectories: tuple[Trajectory, ...]
    failed: int
    "Episodes that a fault ended; they are left out."

    @property
    def success(self) -> float:
        return sum(t.success for t in self.trajectories) / max(len(self.trajectories), 1)


async def demonstrate(
    factory: Callable[[], Environment], renderer: Renderer, context: ContextPolicy, *, count: int, seed: int
) -> Demonstrations:
    """Play `count` training tasks as the environment's demonstrator does. Raises `ConfigError` where it has none."""
    environment = factory()
    found: list[Trajectory] = []
    try:
        for number, task in enumerate(islice(training_tasks(environment), count)):
            actions = _demonstrator(environment)(task, random.Random(f"{seed} {task.id}"))
            found.append(
                await play(environment, renderer, task, actions, context=context, id=f"demonstration-{number:06d}")
            )
            # A world that never waits would keep a Ctrl-C waiting.
            await asyncio.sleep(0)
    finally:
        await environment.close()
    kept = tuple(t for t in found if t.status.trains and t.steps)
    return Demonstrations(kept, len(found) - len(kept))


def recorded(source: Path, count: int, renderer: Renderer) -> Demonstrations:
    """The first `count` successes of a run, an evaluation or a served folder: what an agent did is what is imitated.

    `source` is the folder or its payload file. The recorded ids are learned as they are, so `renderer` has to be of
    the same tokenizer. Raises `ConfigError` where it is of another one, or where there is no success.
    """
    path = source / "payloads.bin" if source.is_dir() else source
    if not path.is_file():
        raise ConfigError(
            f"warm_start.recorded names {source}, and there are no payloads; name the folder of a run, of an "
            "evaluation or of what was served."
        )
    played = [trajectory for trajectory in read_trajectories(path) if trajectory.status.trains and trajectory.steps]
    won = tuple(islice((trajectory for trajectory in played if trajectory.success), count))
    if not won:
        raise ConfigError(f"none of the {len(played)} episodes recorded in {path} succeeded; nothing can be learned.")
    for step in (step for trajectory in won for step in trajectory.steps):
        _check_tokens(path, step, renderer)
    return Demonstrations(won, 0)


def _check_tokens(path: Path, step: Step, renderer: Renderer) -> None:
    """The ids of an answer say to `renderer` what they said when they were sampled."""
    if not len(step.tokens):
        raise ConfigError(f"{path} holds no tokens in step {step.id}: who answered there gave none.")
    meant, read = step.action, renderer.decode(step.tokens)
    words = [*meant.text.split(), *(call.name for call in meant.tool_calls)]
    if missing := [word for word in words if word not in read]:
        raise ConfigError(
            f"{path} was recorded with another tokenizer: in step {step.id} the policy said {missing[0]!r}, and this "
            f"model reads its ids as {read[:80]!r}. Take a model of the same tokenizer: the one that was served, or "
            "one that was trained from it."
        )


async def vocabulary(factory: Callable[[], Environment], *, seed: int) -> list[str]:
    """Every text that a model from scratch may meet: observations, tools, and what the demonstrator says."""
    environment = factory()
    texts: list[str] = []
    try:
        for task in islice(training_tasks(environment), VOCABULARY_EPISODES):
            observation = await environment.reset(task)
            texts += _tool_words(environment.tools())
            texts += _message_words(observation.messages)
            for action in _demonstrator(environment)(task, random.Random(f"{seed} {task.id}")):
                texts += _message_words((action.message(),))
                result = await environment.step(action)
                texts += _message_words(result.observation.messages)
                if result.terminated or result.truncated:
                    break
    finally:
        await environment.close()
    return texts


def training_tasks(environment: Environment) -> Iterator[Task]:
    """The training split; raises `ConfigError` where it is empty."""
    tasks = iter(environment.tasks("train"))
    first = next(tasks, None)
    if first is None:
        raise ConfigError("the environment has no tasks in its split 'train'; `tasks(\"train\")` gave none.")
    yield first
    yield from tasks


def _demonstrator(environment: Environment) -> Callable[[Task, random.Random], Iterable[Action]]:
    found: Any = getattr(environment, "demonstrate", None)
    if found is None:
        raise ConfigError(
            "a warm start needs demonstrations and the environment offers none: give it an `oracle(task)` or a "
            '`demonstrate(task, rng)`, or leave [warm_start] out. A model of name = "tiny" always has one, since it '
            "cannot speak yet: take [model] path instead, the folder of a model or of another run's warm start "
            "(RUN/warm_start/model)."
        )
    return found  # type: ignore[no-any-return]


def _message_words(messages: Sequence[Message]) -> list[str]:
    calls = [call for message in messages for call in message.tool_calls]
    said = [message.content for message in messages] + [call.name for call in calls]
    return said + [str(value) for call in calls for value in call.arguments.values()]


def _tool_words(tools: Sequence[ToolSpec]) -> list[str]:
    """Names, parameters and the values that a schema enumerates."""
    texts: list[str] = []
    for tool in tools:
        texts.append(tool.name)
        for name, schema in tool.parameters.get("properties", {}).items():
            texts += [name, *(str(value) for value in schema.get("enum", ()))]
    return texts


def describe(demonstrations: Demonstrations, losses: Sequence[float], seconds: float) -> dict[str, Any]:
    """What `warm_start/report.json` says."""
    lengths = [len(t.steps) for t in demonstrations.trajectories]
    statuses = {status.value: sum(t.status is status for t in demonstrations.trajectories) for status in Status}
    return asdict(
        WarmStartReport(
            demonstrations=len(demonstrations.trajectories),
            success=demonstrations.success,
            mean_steps=sum(lengths) / max(len(lengths), 1),
            statuses={name: count for name, count in statuses.items() if count},
            first_loss=losses[0],
            last_loss=sum(losses[-10:]) / len(losses[-10:]),
            seconds=round(seconds, 2),
        )
    )


@dataclass(frozen=True, slots=True)
class WarmStartReport:
    demonstrations: int
    success: float
    "Share of the demonstrations that won."
    mean_steps: float
    statuses: dict[str, int]
    first_loss: float
    "Nats per token."
    last_loss: float
    "Mean of the last ten updates."
    seconds: float
