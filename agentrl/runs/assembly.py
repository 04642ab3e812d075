"""From a recipe to a living run: every part built once, wired, resumed where the ledger says, and closed again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agentrl.config import check_parts
from agentrl.errors import ConfigError, TrainingError
from agentrl.evaluation.runner import EVALUATION_SEED
from agentrl.hooks import RunInfo
from agentrl.method import Method
from agentrl.models import load_model, resolve
from agentrl.plugins import Host
from agentrl.protocols import DrawsTasks, Engine, LearnerSide, RolloutStrategy, TaskSampler, WeightPublisher
from agentrl.remote.pool import WORKERS
from agentrl.rollout.accounting import BatchShape
from agentrl.rollout.advice import AdvisedPlayer
from agentrl.rollout.collector import Collector
from agentrl.rollout.decisions import Player
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.rollout.rewarding import RewardTerm
from agentrl.rollout.takeover import MixedPlayer
from agentrl.rollout.tokens import TokenPlayer
from agentrl.runs.blueprint import Blueprint
from agentrl.runs.editor import open_editor
from agentrl.runs.folder import read_method_state
from agentrl.runs.hints import Hints
from agentrl.runs.measure import Measure
from agentrl.runs.null import NullScore, null_score
from agentrl.runs.policy import Policy, build_policy
from agentrl.runs.pulse import Heart
from agentrl.runs.rewards import RewardModels, open_rewards
from agentrl.runs.run import Parts, Plan, TrainingRun
from agentrl.runs.serving import serve
from agentrl.sections import Config
from agentrl.store.ledger import Ledger
from agentrl.training.metrics import MetricsLog
from agentrl.types import Group, Status, Trajectory


@dataclass(slots=True)
class LiveRun:
    """A run that is ready to train: the loop's side, and evaluation on held-out tasks."""

    run: TrainingRun
    measure: Measure
    rewards: RewardModels
    resumed: bool


@asynccontextmanager
async def open_run(blueprint: Blueprint) -> AsyncIterator[LiveRun]:
    """Build everything, go on from the ledger's head if there is one, and close everything on the way out."""
    config, host, folder = blueprint.config, blueprint.host, blueprint.folder
    _check(blueprint)
    async with AsyncExitStack() as stack:
        stack.callback(WORKERS.close)
        # The tasks may be refused: a recipe that is refused claims no folder.
        strategy, sampler = _tasks(blueprint, stack)
        ledger = stack.enter_context(Ledger(folder.path))
        folder.claim(config)
        heart = await stack.enter_async_context(Heart(folder.path, config.training.batches))
        head = ledger.head()
        null = await null_score(blueprint, fresh=head is None)
        checkpoint = None if head is None else folder.path / head.checkpoint
        policy = await _policy(blueprint, checkpoint)
        version = policy.learner.version
        folder.forget_evaluations_after(version)
        engine, publisher = await _engine(blueprint, policy, stack)
        heart.engine = engine
        rewards = open_rewards(blueprint, engine, policy, stack)
        if checkpoint is not None:
            rewards.load(checkpoint)
        advised = _advised(blueprint, engine, policy, stack)
        player = advised(await _player(blueprint, engine, policy, stack))
        rollout = heart.watch(await stack.enter_async_context(training_rollout(blueprint, player, rewards.terms)))
        keep = partial(_keeps, host, policy.method)
        collector = Collector(rollout, strategy, sampler, ledger, _shape(config), keep=keep)
        state = ledger.resume(version, config.rollout.max_staleness)
        if head is not None:
            sampler.restore(head.sampler)
        collector.resume(state)
        await stack.enter_async_context(collector)
        judged = advised(TokenPlayer(engine, policy.renderer, blueprint.context()))
        measure = Measure(blueprint, partial(_judged, heart, blueprint, judged))
        run = TrainingRun(
            folder.path,
            _plan(blueprint, null),
            Parts(
                method=policy.method,
                learner=policy.learner,
                publisher=publisher,
                collector=collector,
                ledger=ledger,
                metrics=MetricsLog(folder.metrics, resumed_at=state.update),
                trackers=_trackers(blueprint),
                events=host.events,
                panel=blueprint.screen,
                evaluate=measure.metrics,
                critic=policy.critic,
                hints=_hints(blueprint, policy),
                rewards=rewards,
                enter=heart.enter,
            ),
            batch=state.update,
        )
        stack.callback(run.close)
        host.events.agentrl_run_started(run=RunInfo(config.name, folder.path, config.model_dump(mode="json"), version))
        yield LiveRun(run, measure, rewards, resumed=head is not None or bool(state.groups))


def _check(blueprint: Blueprint) -> None:
    """Refuses what cannot be trained before anything is built or written. Raises `ConfigError` or `TrainingError`."""
    config = blueprint.config
    check_parts(config, blueprint.host)
    if speaks_only(blueprint):
        raise TrainingError(
            f"the engine {config.engine.name!r} returns no token ids and no log-probabilities, so nothing can be "
            "trained on what it samples. Use 'transformers' or 'vllm'; an API can be evaluated: `agentrl eval "
            "RECIPE -m URL#MODEL`."
        )
    blueprint.folder.check(config)
    blueprint.method()
    blueprint.held_out()


async def _policy(blueprint: Blueprint, checkpoint: Path | None) -> Policy:
    """The policy, as `checkpoint` left it where there is one."""
    policy = await build_policy(blueprint)
    if checkpoint is not None:
        policy.learner.load(checkpoint)
        policy.method.restore(read_method_state(checkpoint))
        if policy.critic is not None:
            policy.critic.load(checkpoint)
    return policy


def _tasks(blueprint: Blueprint, stack: AsyncExitStack) -> tuple[RolloutStrategy, TaskSampler]:
    """The strategy, closed by the stack, and the sampler, with the strategy's own groups between its tasks."""
    config = blueprint.config
    given = {"tasks": lambda: blueprint.environment().tasks("train"), "seed": config.seed}
    sampler: TaskSampler = blueprint.part("samplers", config.rollout.sampler, "[rollout] sampler", given)
    strategy = blueprint.strategy()
    if hasattr(strategy, "close"):
        stack.push_async_callback(strategy.close)
    return strategy, strategy.around(sampler) if isinstance(strategy, DrawsTasks) else sampler


def speaks_only(blueprint: Blueprint) -> bool:
    """Whether the recipe's engine answers messages and gives no tokens, so that it can be evaluated, not trained."""
    return not getattr(blueprint.host.factory("engines", blueprint.config.engine.name), "trainable", True)


def training_rollout(blueprint: Blueprint, player: Player, terms: Sequence[RewardTerm] = ()) -> RolloutEngine:
    config, host = blueprint.config, blueprint.host
    return RolloutEngine(
        blueprint.environment,
        player,
        limits=_limits(config, config.rollout.temperature),
        supervision=_supervision(config),
        rewards=terms,
        on_trajectory=partial(_announce, host),
        seed=config.seed,
    )


def evaluation_rollout(blueprint: Blueprint, player: Player, temperature: float) -> RolloutEngine:
    """The environment's own reward only, and no events."""
    config = blueprint.config
    return RolloutEngine(
        blueprint.environment,
        player,
        limits=_limits(config, temperature),
        supervision=_supervision(config),
        seed=config.seed + EVALUATION_SEED,
    )


def _judged(heart: Heart, blueprint: Blueprint, player: Player, temperature: float) -> RolloutEngine:
    heart.enter("evaluating on held-out tasks")
    return heart.watch(evaluation_rollout(blueprint, player, temperature))


def _hints(blueprint: Blueprint, policy: Policy) -> Hints | None:
    if policy.method.hint is None:
        return None
    hints = Hints(policy.method.hint, blueprint.environment, policy.renderer, blueprint.context())
    hints.check()
    return hints


async def _engine(blueprint: Blueprint, policy: Policy, stack: AsyncExitStack) -> tuple[Engine, WeightPublisher]:
    """The policy's engine. An asynchronous run samples from a copy: shared weights change under it."""
    model = None if blueprint.config.rollout.max_staleness else policy.learner.model
    engine = await _serve(blueprint, policy, stack, policy.model_path, model)
    publisher = engine.publisher(LearnerSide(policy.learner.model, policy.learner.score, blueprint.folder.path))
    return engine, publisher


async def _player(blueprint: Blueprint, engine: Engine, policy: Policy, stack: AsyncExitStack) -> Player:
    """The policy; with a teacher beside it, on an engine of the same kind, where the method lets one take turns."""
    player = TokenPlayer(engine, policy.renderer, blueprint.context())
    takeover, teacher = policy.method.takeover, blueprint.config.model.teacher
    if takeover is None:
        return player
    if teacher is None:
        raise ConfigError(f"the method {policy.method.name!r} lets a teacher take turns over; set [model] teacher.")
    other = await _serve(blueprint, policy, stack, resolve(teacher), None)
    return MixedPlayer(
        player, TokenPlayer(other, policy.renderer, blueprint.context()), takeover, lambda: engine.version
    )


def _advised(blueprint: Blueprint, engine: Engine, policy: Policy, stack: AsyncExitStack) -> Callable[[Player], Player]:
    """Makes players find the run's experiences in their prompts, where it keeps some."""
    settings = blueprint.config.experience
    if settings is None:
        return lambda player: player
    policy.learner.ask = open_editor(settings, engine, policy.renderer, stack)
    return lambda player: AdvisedPlayer(player, policy.learner.advice)


async def _serve(blueprint: Blueprint, policy: Policy, stack: AsyncExitStack, weights: Path, model: Any) -> Engine:
    """An engine of the recipe's kind on `weights`, started, and closed by the stack.

    One that samples in this process is given `model`, or where there is none a copy of its own.
    """
    config = blueprint.config
    given: dict[str, Any] = {
        "model_path": weights,
        "log_folder": blueprint.folder.path,
        "device": policy.device,
        "dtype": config.model.dtype,
        "max_context": config.rollout.max_context,
        "max_sequences": config.rollout.concurrency,
    }
    if weights == policy.model_path:
        given["lock"] = policy.lock

    def load() -> Any:
        return load_model(weights, dtype="float32", device=policy.device) if model is None else model

    return await serve(blueprint.host, config.engine, given, load, stack)


def _limits(config: Config, temperature: float) -> EpisodeLimits:
    rollout = config.rollout
    return EpisodeLimits(
        max_steps=rollout.max_steps,
        max_tokens=rollout.max_tokens,
        max_context=rollout.max_context,
        temperature=temperature,
        episode_deadline=rollout.episode_deadline,
    )


def _supervision(config: Config) -> Supervision:
    rollout = config.rollout
    return Supervision(
        environment_slots=rollout.environments, engine_slots=rollout.concurrency, attempts=rollout.retries + 1
    )


def _keeps(host: Host, method: Method, group: Group) -> bool:
    """The method first: a plugin is asked about groups that would be trained on."""
    wanted = method.keep is None or method.keep(group)
    return wanted and False not in host.events.agentrl_keep_group(group=group)


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


def _plan(blueprint: Blueprint, null: NullScore | None) -> Plan:
    config = blueprint.config
    return Plan(
        batches=config.training.batches,
        evaluate_every=config.evaluation.every if config.evaluation.tasks else 0,
        checkpoint_every=config.training.checkpoint_every,
        keep_checkpoints=config.training.keep_checkpoints,
        asynchronous=config.rollout.max_staleness > 0,
        offers_tools=bool(blueprint.environment().tools()),
        null=null,
    )


def _trackers(blueprint: Blueprint) -> list[Any]:
    config, made = blueprint.config, []
    for part in config.report.trackers:
        tracker = blueprint.part("trackers", part, "[report] trackers", {"folder": blueprint.folder.path})
        tracker.start(config.name, config.model_dump(mode="json"))
        made.append(tracker)
    return made
