"""From a recipe to a living run: every part built once, wired, resumed where the ledger says, and closed again.

This is the only place that knows all parts. What a factory needs of the run (a model, a folder, a lock) it takes by
the name of its parameter; nothing here asks which engine or method it is.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from agentrl.config import check_parts
from agentrl.environment import adapt
from agentrl.errors import ConfigError, TrainingError
from agentrl.evaluation.harness import Evaluation, evaluate
from agentrl.hooks import RunInfo
from agentrl.method import Method
from agentrl.models import load_model, load_tokenizer, resolve
from agentrl.plugins import Host
from agentrl.protocols import Engine, Environment, LearnerSide, Renderer, WeightPublisher
from agentrl.rendering import self_test
from agentrl.rollout.accounting import BatchShape
from agentrl.rollout.collector import Collector
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.rollout.rewarding import RewardTerm
from agentrl.runs.folder import RunFolder
from agentrl.runs.run import Parts, Plan, TrainingRun
from agentrl.runs.warm_start import Demonstrations, demonstrate, describe, vocabulary
from agentrl.sections import Config
from agentrl.store.ledger import Ledger
from agentrl.training.metrics import MetricsLog
from agentrl.training.report import ProgressReport
from agentrl.types import Status, Task, Trajectory


class Screen(Protocol):
    """Where a run says how it goes."""

    def show(self, report: ProgressReport) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(slots=True)
class LiveRun:
    """A run that is ready to train: the loop's side, and evaluation on held-out tasks."""

    run: TrainingRun
    folder: RunFolder
    measure: Callable[[int], Any]
    "Evaluate the published weights at every temperature; takes the policy version, gives one Evaluation each."
    measured: Callable[[int], list[Evaluation]]
    "The evaluations of a policy version that were made before."
    resumed: bool


@asynccontextmanager
async def open_run(config: Config, host: Host, folder: RunFolder, screen: Screen) -> AsyncIterator[LiveRun]:
    """Build everything, go on from the ledger's head if there is one, and close everything on the way out."""
    check_parts(config, host)
    folder.check(config)
    factory = environment_factory(config, host)
    held_out(config, factory)
    async with AsyncExitStack() as stack:
        ledger = stack.enter_context(Ledger(folder.path))
        folder.claim(config)
        policy = await _policy(config, host, factory, folder, screen)
        head = ledger.head()
        if head is not None:
            policy.learner.load(folder.path / head.checkpoint)
        version = policy.learner.version
        folder.forget_evaluations_after(version)
        engine, publisher = await _engine(config, host, policy, folder, stack)
        rollout = await stack.enter_async_context(_rollout(config, host, factory, engine, policy.renderer))
        sampler = _create(
            host, config.rollout.sampler, "samplers", tasks=lambda: factory().tasks("train"), seed=config.seed
        )
        collector = Collector(
            rollout,
            _create(host, config.rollout.strategy, "strategies"),
            sampler,
            ledger,
            _shape(config),
            keep=lambda group: False not in host.events.agentrl_keep_group(group=group),
        )
        state = ledger.resume(version, config.rollout.max_staleness)
        if head is not None:
            sampler.restore(head.sampler)
        collector.resume(state)
        await stack.enter_async_context(collector)
        measure = partial(_measure, config, host, factory, engine, policy.renderer, folder, screen)
        run = TrainingRun(
            folder.path,
            _plan(config, factory()),
            Parts(
                method=policy.method,
                learner=policy.learner,
                publisher=publisher,
                collector=collector,
                ledger=ledger,
                metrics=MetricsLog(folder.metrics, resumed_at=state.update),
                trackers=_trackers(config, host, folder),
                events=host.events,
                panel=screen,
                evaluate=partial(_evaluation_metrics, measure),
            ),
            batch=state.update,
        )
        stack.callback(run.close)
        plain = config.model_dump(mode="json")
        host.events.agentrl_run_started(run=RunInfo(config.name, folder.path, plain, version))
        measured = partial(_measured, config, folder)
        yield LiveRun(run, folder, measure, measured, resumed=head is not None or bool(state.groups))


def environment_factory(config: Config, host: Host) -> Callable[[], Environment]:
    """A callable that builds one environment of the recipe."""
    part = config.environment

    def build() -> Environment:
        return adapt(host.create("environments", part.name, part.options, where="[environment]"))

    return build


@dataclass(slots=True)
class _Policy:
    method: Method
    learner: Any
    renderer: Renderer
    model_path: Path
    device: str
    lock: threading.Lock


async def warm_up(config: Config, host: Host, folder: RunFolder, screen: Screen) -> Path:
    """The warm start of a recipe by itself; the folder of its weights."""
    if config.warm_start is None:
        raise ConfigError(f"the recipe {config.name!r} has no [warm_start]; say how many demonstrations to learn from.")
    check_parts(config, host)
    folder.check(config)
    with Ledger(folder.path):
        folder.claim(config)
        return await _starting_weights(config, host, environment_factory(config, host), folder, _device(config), screen)


def _device(config: Config) -> str:
    import torch

    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    if config.model.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return config.model.device


async def _policy(
    config: Config, host: Host, factory: Callable[[], Environment], folder: RunFolder, screen: Screen
) -> _Policy:
    """The model (warm-started where the recipe says so), its renderer and its learner."""
    device = _device(config)
    method: Method = host.create("methods", config.method.name, config.method.options, where="[method]")
    start = await _starting_weights(config, host, factory, folder, device, screen)
    lock = threading.Lock()
    learner = _learner(config, method.objective(), start, device, folder, lock)
    renderer = _renderer(config, host, start)
    test = self_test(renderer, await _tools(factory))
    if test.forks:
        screen.note(f"render   {test}")
    return _Policy(method, learner, renderer, start, device, lock)


async def _starting_weights(
    config: Config, host: Host, factory: Callable[[], Environment], folder: RunFolder, device: str, screen: Screen
) -> Path:
    """The folder of the weights that training starts from; made once, complete or absent."""
    if config.model.path is not None:
        base = resolve(config.model.path)
    else:
        base = folder.blank_model
        if not base.exists():
            from agentrl.tiny import make_tiny

            model = config.model
            texts = await vocabulary(factory, seed=config.seed)
            make_tiny(
                base,
                texts,
                hidden=model.hidden,
                layers=model.layers,
                heads=model.heads,
                context=config.rollout.max_context,
                seed=config.seed,
            )
    if config.warm_start is None or folder.warm_model.exists():
        return base if config.warm_start is None else folder.warm_model
    renderer = _renderer(config, host, base)
    context = _create(host, config.rollout.context, "context_policies")
    shown = await demonstrate(factory, renderer, context, count=config.warm_start.demonstrations, seed=config.seed)
    stop = threading.Event()
    work = asyncio.ensure_future(asyncio.to_thread(_fine_tune, config, base, shown, folder, device, screen, stop))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([work])
        raise
    return folder.warm_model


def _fine_tune(
    config: Config,
    base: Path,
    shown: Demonstrations,
    folder: RunFolder,
    device: str,
    screen: Screen,
    stop: threading.Event,
) -> None:
    """The warm start; its weights are renamed into place when they are complete. `stop` ends it after an update."""
    from agentrl.training.learner import LearnerSettings, TorchLearner
    from agentrl.training.sft import NegativeLogprob, SftSettings, fine_tune

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
    screen.note(
        f"warm-up  {told['demonstrations']:,} demonstrations of which {100 * shown.success:.0f}% succeed · "
        f"loss {told['first_loss']:.2f} to {told['last_loss']:.2f} nats · {report.seconds:.0f} s"
    )


def _learner(config: Config, objective: Any, start: Path, device: str, folder: RunFolder, lock: threading.Lock) -> Any:
    from agentrl.training.learner import LearnerSettings, LoraSettings, TorchLearner

    training, model = config.training, config.model
    lora = LoraSettings(model.lora_rank, int(model.lora_alpha), seed=config.seed) if model.lora_rank else None
    settings = LearnerSettings(
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        warmup_updates=training.warmup_updates,
        gradient_clip=training.gradient_clip,
        minibatches=training.minibatches,
        micro_batch_tokens=training.micro_batch_tokens,
        temperature=config.rollout.temperature,
        compute="bfloat16" if model.dtype == "bfloat16" and lora is None else "float32",
        lora=lora,
    )
    dtype = model.dtype if lora is not None else "float32"
    module = load_model(start, dtype=dtype, device=device)
    return TorchLearner(module, objective, settings=settings, lock=lock, source=start, dumps=folder.path / "dumps")


def _renderer(config: Config, host: Host, weights: Path) -> Renderer:
    renderer: Renderer = host.factory("renderers", config.model.renderer)(load_tokenizer(weights))
    return renderer


async def _tools(factory: Callable[[], Environment]) -> Sequence[Any]:
    """The tools of the first training task."""
    environment = factory()
    try:
        task = next(iter(environment.tasks("train")), None)
        if task is None:
            raise ConfigError("the environment has no tasks in its split 'train'.")
        await environment.reset(task)
        return environment.tools()
    finally:
        await environment.close()


async def _engine(
    config: Config, host: Host, policy: _Policy, folder: RunFolder, stack: AsyncExitStack
) -> tuple[Engine, WeightPublisher]:
    """Started, and closed by the stack. An asynchronous run samples from a copy: shared weights change under it."""
    shared = config.rollout.max_staleness == 0
    dtype = config.model.dtype if config.model.lora_rank or shared else "float32"
    given: dict[str, Any] = {
        "model_path": policy.model_path,
        "log_folder": folder.path,
        "lock": policy.lock,
        "device": policy.device,
        "dtype": config.model.dtype,
        "max_context": config.rollout.max_context,
        "max_sequences": config.rollout.concurrency,
        "version": policy.learner.version,
    }
    if config.engine.name == "transformers" or shared:
        given["model"] = policy.learner.model
    if config.engine.name == "transformers" and not shared:
        given["model"] = load_model(policy.model_path, dtype=dtype, device=policy.device)
    engine: Engine = host.create("engines", config.engine.name, config.engine.options, given=given, where="[engine]")
    if not engine.trainable:
        raise TrainingError(
            f"the engine {config.engine.name!r} returns no token ids and no log-probabilities, so nothing can be "
            "trained on what it samples. Use 'transformers' or 'vllm'; it can be evaluated with `agentrl eval`."
        )
    stack.push_async_callback(engine.close)
    await engine.start()
    publisher = engine.publisher(LearnerSide(policy.learner.model, policy.learner.score, folder.path))
    return engine, publisher


def _rollout(
    config: Config,
    host: Host,
    factory: Callable[[], Environment],
    engine: Engine,
    renderer: Renderer,
    temperature: float | None = None,
) -> RolloutEngine:
    """For training, or with a temperature for an evaluation, which fires no events and has seeds of its own."""
    rollout = config.rollout
    limits = EpisodeLimits(
        max_steps=rollout.max_steps,
        max_tokens=rollout.max_tokens,
        max_context=rollout.max_context,
        temperature=rollout.temperature if temperature is None else temperature,
        episode_deadline=rollout.episode_deadline,
    )
    supervision = Supervision(
        environment_slots=rollout.environments, engine_slots=rollout.concurrency, attempts=rollout.retries + 1
    )
    trains = temperature is None
    return RolloutEngine(
        factory,
        engine,
        renderer,
        limits=limits,
        supervision=supervision,
        context=_create(host, rollout.context, "context_policies"),
        rewards=_reward_terms(config, host) if trains else (),
        on_trajectory=partial(_announce, host) if trains else None,
        seed=config.seed if trains else config.seed + 1_000_003,
    )


def _reward_terms(config: Config, host: Host) -> list[RewardTerm]:
    return [RewardTerm(r.name, host.create("reward_models", r.name, r.options), r.weight) for r in config.rewards]


def _announce(host: Host, trajectory: Trajectory) -> None:
    if trajectory.status.trains:
        host.events.agentrl_trajectory_finished(trajectory=trajectory)
    elif trajectory.status is not Status.CANCELLED:
        host.events.agentrl_failure(trajectory=trajectory)


def _shape(config: Config) -> BatchShape:
    rollout = config.rollout
    return BatchShape(
        groups=rollout.tasks_per_batch,
        group_size=rollout.group_size,
        minimum_group=rollout.minimum_group,
        max_staleness=rollout.max_staleness,
        versions_per_batch=config.training.minibatches,
    )


def _plan(config: Config, environment: Environment) -> Plan:
    return Plan(
        batches=config.training.batches,
        evaluate_every=config.evaluation.every if config.evaluation.tasks else 0,
        checkpoint_every=config.training.checkpoint_every,
        keep_checkpoints=config.training.keep_checkpoints,
        asynchronous=config.rollout.max_staleness > 0,
        offers_tools=bool(environment.tools()),
    )


def _trackers(config: Config, host: Host, folder: RunFolder) -> list[Any]:
    made = []
    for part in config.report.trackers:
        tracker = host.create(
            "trackers", part.name, part.options, given={"folder": folder.path}, where="[report] trackers"
        )
        tracker.start(config.name, config.model_dump(mode="json"))
        made.append(tracker)
    return made


async def _measure(
    config: Config,
    host: Host,
    factory: Callable[[], Environment],
    engine: Engine,
    renderer: Renderer,
    folder: RunFolder,
    screen: Screen,
    update: int,
) -> list[Evaluation]:
    """One evaluation per temperature; what lies on the disk already is not played again."""
    tasks = held_out(config, factory)
    known = {evaluation.temperature: evaluation for evaluation in _measured(config, folder, update)}
    found = []
    for temperature in config.evaluation.temperatures if tasks else ():
        path = folder.evaluation(update, temperature)
        attempts = config.evaluation.attempts if temperature > 0 else 1
        if temperature in known and known[temperature].answers(tasks, attempts):
            found.append(known[temperature])
            continue
        async with _rollout(config, host, factory, engine, renderer, temperature) as rollout:
            result = await evaluate(rollout, tasks, attempts=attempts, temperature=temperature, update=update)
        result.save(path)
        found.append(result)
    return found


def _measured(config: Config, folder: RunFolder, update: int) -> list[Evaluation]:
    paths = [folder.evaluation(update, temperature) for temperature in config.evaluation.temperatures]
    return [Evaluation.load(path) for path in paths if path.exists()]


def held_out(config: Config, factory: Callable[[], Environment]) -> list[Task]:
    """The recipe's evaluation tasks: the first of the split, the same in every run."""
    split, count = config.evaluation.split, config.evaluation.tasks
    tasks = [replace(task, split=split) for task in islice(factory().tasks(split), count)]
    if count and not tasks:
        raise ConfigError(f"the environment has no tasks in its split {split!r}; set evaluation.split or tasks = 0.")
    return tasks


async def _evaluation_metrics(measure: Callable[[int], Any], update: int) -> dict[str, float]:
    results: list[Evaluation] = await measure(update)
    return {f"held_out_success_{r.temperature:g}": r.success().value for r in results}


def _create(host: Host, part: Any, kind: str, **given: Any) -> Any:
    return host.create(kind, part.name, part.options, given=given, where=f"[rollout] {part.name}")
