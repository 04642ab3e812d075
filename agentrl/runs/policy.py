"""The policy of a run: the weights it starts from, its renderer, and its learner.

Starting weights are made once; their folder is complete or absent.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl.config import check_parts
from agentrl.errors import ConfigError, TrainingError
from agentrl.method import Method
from agentrl.models import load_model, load_tokenizer, resolve
from agentrl.protocols import Renderer
from agentrl.rendering import self_test
from agentrl.runs.blueprint import Blueprint
from agentrl.runs.warm_start import Demonstrations, demonstrate, describe, recorded, vocabulary
from agentrl.sections import Experience
from agentrl.store.ledger import Ledger
from agentrl.training.memory import release, retain
from agentrl.types import Observation, ToolSpec


@dataclass(slots=True)
class Policy:
    method: Method
    learner: Any
    renderer: Renderer
    model_path: Path
    "Of the weights that training started from."
    device: str
    lock: threading.Lock
    "Held while weights are written."
    critic: Any = None
    "Where the method has one."


async def build_policy(blueprint: Blueprint) -> Policy:
    """The model (warm-started where the recipe says so), its renderer and its learner."""
    device = blueprint.device()
    if device == "cpu":
        retain()
    config, method = blueprint.config, blueprint.method()
    shown, tools = await _first_look(blueprint)
    # Before the warm start, which takes minutes.
    method.check(config.rollout.group_size, state_keys=shown.state_key is not None)
    if config.experience is not None and (method.critic or method.hint or method.takeover):
        raise ConfigError(
            f"the method {method.name!r} needs weights that learn (a critic, a hint or a teacher's turns), and with "
            "[experience] they stand still. Choose a method such as grpo, or leave [experience] out."
        )
    start = await starting_weights(blueprint, device)
    lock = threading.Lock()
    if config.experience is None:
        learner = _learner(blueprint, method.objective(), start, device, lock)
    else:
        learner = _experience(config.experience, load_model(start, dtype=config.model.dtype, device=device))
    renderer = make_policy_renderer(blueprint, start)
    test = self_test(renderer, tools)
    if test.forks:
        blueprint.screen.note(f"render   {test}")
    return Policy(method, learner, renderer, start, device, lock, _critic(blueprint, method, start, device))


async def warm_up(blueprint: Blueprint) -> Path:
    """The warm start of a recipe by itself; the folder of its weights."""
    config, folder = blueprint.config, blueprint.folder
    if config.warm_start is None:
        raise ConfigError(f"the recipe {config.name!r} has no [warm_start]; say how many demonstrations to learn from.")
    check_parts(config, blueprint.host)
    folder.check(config)
    with Ledger(folder.path):
        folder.claim(config)
        return await starting_weights(blueprint, blueprint.device())


async def starting_weights(blueprint: Blueprint, device: str) -> Path:
    """The folder of the weights that training starts from."""
    config, folder = blueprint.config, blueprint.folder
    if config.warm_start is not None and folder.warm_model.exists():
        return folder.warm_model
    base = await _base(blueprint)
    if config.warm_start is None:
        return base
    renderer, count = make_policy_renderer(blueprint, base), config.warm_start.demonstrations
    if config.warm_start.recorded:
        shown = recorded(Path(config.warm_start.recorded), count, renderer)
    else:
        shown = await demonstrate(blueprint.environment, renderer, blueprint.context(), count=count, seed=config.seed)
    stop = threading.Event()
    work = asyncio.ensure_future(asyncio.to_thread(_fine_tune, blueprint, base, shown, device, stop))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([work])
        raise
    release()
    return folder.warm_model


def make_policy_renderer(blueprint: Blueprint, weights: Path) -> Renderer:
    renderer: Renderer = blueprint.host.factory("renderers", blueprint.config.model.renderer)(load_tokenizer(weights))
    return renderer


async def _base(blueprint: Blueprint) -> Path:
    """Pretrained weights, or a tiny random model whose vocabulary is what the environment says."""
    config = blueprint.config
    if config.model.path is not None:
        return resolve(config.model.path)
    base = blueprint.folder.blank_model
    if not base.exists():
        from agentrl.tiny import make_tiny

        make_tiny(
            base,
            await vocabulary(blueprint.environment, seed=config.seed),
            hidden=config.model.hidden,
            layers=config.model.layers,
            heads=config.model.heads,
            context=config.rollout.max_context,
            seed=config.seed,
        )
    return base


def _fine_tune(blueprint: Blueprint, base: Path, shown: Demonstrations, device: str, stop: threading.Event) -> None:
    """The warm start; its weights are renamed into place when they are complete. `stop` ends it after an update."""
    from agentrl.training.learner import LearnerSettings, TorchLearner
    from agentrl.training.sft import NegativeLogprob, SftSettings, fine_tune

    config, folder = blueprint.config, blueprint.folder
    warm = config.warm_start
    assert warm is not None
    settings = LearnerSettings(
        learning_rate=warm.learning_rate,
        gradient_clip=config.training.gradient_clip,
        micro_batch_tokens=config.training.micro_batch_tokens,
        report_entropy=False,
    )
    model = load_model(base, dtype="float32", device=device)
    learner = TorchLearner(model, NegativeLogprob(), settings=settings, source=base)

    def go_on(update: int, updates: int, loss: float) -> None:
        if stop.is_set():
            raise TrainingError(f"the warm start was stopped after update {update} of {updates}; it begins anew.")

    report = fine_tune(learner, shown.trajectories, SftSettings(warm.epochs, warm.batch, config.seed), go_on)
    aside = folder.warm_model.parent / "learner"
    learner.save(aside)
    told = describe(shown, report.losses, report.seconds)
    folder.warm_report.write_text(json.dumps(told, indent=1))
    (aside / "model").rename(folder.warm_model)
    blueprint.screen.note(
        f"warm-up  {told['demonstrations']:,} demonstrations of which {100 * shown.success:.0f}% succeed · "
        f"loss {told['first_loss']:.2f} to {told['last_loss']:.2f} nats · {report.seconds:.0f} s"
    )
    if len(shown.trajectories) < warm.demonstrations:
        blueprint.screen.note(f"warm-up  {warm.demonstrations:,} were asked for; there are no more training tasks")


def _learner(blueprint: Blueprint, objective: Any, start: Path, device: str, lock: threading.Lock) -> Any:
    from agentrl.training.learner import LearnerSettings, LoraSettings, TorchLearner

    training, model = blueprint.config.training, blueprint.config.model
    seed = blueprint.config.seed
    lora = LoraSettings(model.lora_rank, int(model.lora_alpha), seed=seed) if model.lora_rank else None
    settings = LearnerSettings(
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        warmup_updates=training.warmup_updates,
        gradient_clip=training.gradient_clip,
        minibatches=training.minibatches,
        micro_batch_tokens=training.micro_batch_tokens,
        temperature=blueprint.config.rollout.temperature,
        compute="bfloat16" if model.dtype == "bfloat16" and lora is None else "float32",
        lora=lora,
    )
    module = load_model(start, dtype=model.dtype if lora is not None else "float32", device=device)
    dumps = blueprint.folder.path / "dumps"
    teacher = None
    if objective.needs_teacher and model.teacher is not None:
        teacher = load_model(resolve(model.teacher), dtype="float32", device=device)
    return TorchLearner(module, objective, settings=settings, lock=lock, source=start, dumps=dumps, teacher=teacher)


def _experience(settings: Experience, model: Any) -> Any:
    from agentrl.training.experience import Bounds, ExperienceLearner

    return ExperienceLearner(model, Bounds(settings.limit, settings.longest, settings.tries))


def _critic(blueprint: Blueprint, method: Method, start: Path, device: str) -> Any:
    if method.critic is None:
        return None
    from agentrl.training.critic import TorchCritic

    model = load_model(start, dtype="float32", device=device)
    return TorchCritic(model, method.critic, micro_batch_tokens=blueprint.config.training.micro_batch_tokens)


async def _first_look(blueprint: Blueprint) -> tuple[Observation, Sequence[ToolSpec]]:
    """What the first training task shows, and its tools."""
    environment = blueprint.environment()
    try:
        task = next(iter(environment.tasks("train")), None)
        if task is None:
            raise ConfigError(
                "the environment has no tasks in its split 'train', and training needs at least one. Let its "
                '`tasks("train")` yield some.'
            )
        return await environment.reset(task), environment.tools()
    finally:
        await environment.close()
