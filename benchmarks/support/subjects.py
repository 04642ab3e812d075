"""What the benchmarks run on: the two environments, and a policy for each.

Everything comes from a seed, so two runs of a benchmark do the same work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from agentrl import models
from agentrl.environment import adapt
from agentrl.protocols import Engine, Environment, Renderer
from agentrl.rendering import make_renderer
from agentrl.rollout.context import Append
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.rollout.strategies.independent import Independent
from agentrl.rollout.tokens import TokenPlayer
from agentrl.runs.warm_start import demonstrate, vocabulary
from agentrl.types import Group, Task

MAX_CONTEXT = 256


@dataclass(frozen=True)
class Subject:
    """An environment, and a model that can act in it."""

    factory: Callable[[], Environment]
    model_path: Path
    renderer: Renderer
    limits: EpisodeLimits

    def tasks(self, count: int, skip: int = 0) -> list[Task]:
        return list(islice(self.factory().tasks("train"), skip, skip + count))

    def rollout(self, engine: Engine, concurrency: int, seed: int = 0) -> RolloutEngine:
        slots = Supervision(environment_slots=concurrency, engine_slots=concurrency)
        player = TokenPlayer(engine, self.renderer)
        return RolloutEngine(self.factory, player, limits=self.limits, supervision=slots, seed=seed)


def keydoor() -> Environment:
    from keydoor.env import KeyDoor

    return adapt(KeyDoor(size=4, horizon=16))


def tool_desk() -> Environment:
    """The world of the recipe `smollm2-tool-desk`."""
    try:
        from tool_desk.env import ToolDesk
    except ImportError:
        raise SystemExit(
            "the environment tool_desk is not installed; run `make test`, or put environments/tool_desk on PYTHONPATH"
        ) from None
    return adapt(ToolDesk(level="easy", shaped=True, shots=0))


async def keydoor_subject(folder: Path, demonstrations: int = 600) -> Subject:
    """The quick start's model (84k parameters) after a shorter warm-up: it makes valid calls and seldom wins."""
    from agentrl.tiny import make_tiny
    from agentrl.training.learner import LearnerSettings, TorchLearner
    from agentrl.training.sft import NegativeLogprob, SftSettings, fine_tune

    blank = make_tiny(
        folder / "blank", await vocabulary(keydoor, seed=0), hidden=64, layers=2, heads=2, context=MAX_CONTEXT
    )
    renderer = make_renderer(models.load_tokenizer(blank), "word")
    shown = await demonstrate(keydoor, renderer, Append(), count=demonstrations, seed=0)
    settings = LearnerSettings(learning_rate=3e-3, report_entropy=False)
    learner = TorchLearner(models.load_model(blank), NegativeLogprob(), settings=settings, source=blank)
    await asyncio.to_thread(fine_tune, learner, shown.trajectories, SftSettings())
    learner.save(folder / "warm")
    return Subject(keydoor, folder / "warm" / "model", renderer, EpisodeLimits(max_tokens=8, max_context=MAX_CONTEXT))


def tool_desk_subject(model: str = "smollm2-135m") -> Subject:
    """A pretrained model with the limits of the recipe `smollm2-tool-desk`."""
    path = models.resolve(model)
    limits = EpisodeLimits(max_tokens=16, max_context=320)
    return Subject(tool_desk, path, make_renderer(models.load_tokenizer(path), "chatml+plain"), limits)


def shrunk(model: Path, folder: Path) -> Path:
    """A random model of two thin layers with the tokenizer of `model`: the same script in seconds, for `--quick`."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model)
    config.update(
        {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 32,
        }
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    models.load_tokenizer(model).save_pretrained(folder)
    return folder


async def play_groups(subject: Subject, rollout: RolloutEngine, tasks: Sequence[Task], size: int) -> list[Group]:
    """`size` episodes of every task, all at once within the slots of `rollout`."""

    async def one(number: int, task: Task) -> Group:
        name = f"g{number}"
        played = await Independent().run(task, size, rollout.group(name))
        return Group(name, task, tuple(t for t in played if t.status.trains and t.steps))

    return list(await asyncio.gather(*(one(number, task) for number, task in enumerate(tasks))))
