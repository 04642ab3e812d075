"""One evaluation from its settings to its result: find suite and policy, play, play the null policy, write down.

Whatever ends it, what was played is kept, and `results.json` says what there is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from agentrl.errors import ConfigError
from agentrl.evaluation.folder import EvaluationFolder
from agentrl.evaluation.result import Conditions, EvaluationResult, Manifest, NullRow, Prices
from agentrl.evaluation.runner import INTERRUPTED, Plan, SuiteRun, null_row
from agentrl.evaluation.suite import Suite
from agentrl.plugins import Host
from agentrl.remote.pool import WORKERS
from agentrl.rollout.decisions import Player
from agentrl.runs.policies import BUILT_IN, Policy, Sampled, find_policy
from agentrl.runs.pulse import Heart
from agentrl.runs.suites import find_suite, versions
from agentrl.types import JSON

WHO = (
    "a run's folder (its newest weights), a model's folder or name, http://HOST:PORT/v1#MODEL, or oracle, null, "
    "random, human"
)
NULL = "null"
NOBODY: Mapping[str, JSON] = {"kind": NULL}
"The folder below an evaluation in which the null policy played the same tasks."
MOST_ATTEMPTS = 16
"Of a task, where an interval is asked for and no number of attempts; a greedy policy gets one."


@dataclass(frozen=True, slots=True)
class EvalSettings(Sampled):
    """What `agentrl eval` was asked for."""

    suite: str
    policy: str
    "Empty where nobody was named, which is refused once the suite is found."
    words: tuple[str, ...] = ()
    "Options of the suite, or keys of the recipe, as key=value."
    out: Path | None = None
    "evals/SUITE-POLICY where None."
    limit: int | None = None
    tasks: tuple[str, ...] = ()
    attempts: int | None = None
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int | None = None
    "Per answer; what the policy was made for, else what the suite says, where None."
    concurrency: int = 16
    until_ci: float | None = None
    max_seconds: float | None = None
    max_cost: float | None = None
    episode_deadline: float | None = None
    prices: Prices = field(default_factory=Prices)


@dataclass(frozen=True, slots=True)
class Sitting:
    """What a command needs to know of an evaluation that is about to be played."""

    suite: Suite
    policy: Policy
    folder: Path
    manifest: Manifest
    plan: Plan


def prepare(settings: EvalSettings, host: Host, others: Mapping[str, Policy] | None = None) -> Sitting:
    """Find everything and start nothing. `others` are policies that the caller brings. Raises `ConfigError`."""
    suite = find_suite(host, settings.suite, settings.words)
    if not settings.policy:
        raise ConfigError(f"who is to play {settings.suite!r}? Give -m: {WHO}.")
    brought = (others or {}).get(settings.policy)
    policy = brought or settings.find(settings.policy, host)
    if settings.max_cost is not None and settings.prices == Prices():
        raise ConfigError("--max-cost needs prices: --price-prompt and --price-completion, per million tokens.")
    attempts = settings.attempts
    if attempts is None:
        attempts = MOST_ATTEMPTS if settings.until_ci is not None and settings.temperature > 0 else 1
    plan = Plan(
        tasks=suite.chosen(settings.tasks, settings.limit),
        attempts=attempts,
        concurrency=settings.concurrency,
        until_ci=settings.until_ci,
        max_seconds=settings.max_seconds,
        max_cost=settings.max_cost,
        episode_deadline=settings.episode_deadline,
    )
    manifest = Manifest(
        suite=suite.name,
        version=suite.version,
        hash=suite.hash,
        environment=suite.tasks[0].env,
        options=dict(suite.options),
        tasks=len(suite.tasks),
        known_bad=dict(suite.known_bad),
        policy=settings.policy,
        identity=policy.identity,
        conditions=Conditions(
            settings.temperature, settings.seed, settings.max_tokens or policy.max_tokens or suite.limits.max_tokens
        ),
        distributions=versions(host, suite),
        command=settings.command,
        prices=settings.prices,
    )
    folder = settings.out or Path("evals") / f"{_slug(settings.suite)}-{_slug(settings.policy)}"
    return Sitting(suite, policy, folder, manifest, plan)


def introduction(sitting: Sitting) -> list[str]:
    """Who is going to play what, in a few lines."""
    manifest, plan = sitting.manifest, sitting.plan
    options = "".join(f" {key}={value}" for key, value in manifest.options.items())
    part = f"{len(plan.tasks)} of " if len(plan.tasks) < manifest.tasks else ""
    times = f" x {plan.attempts}" if plan.attempts > 1 else ""
    what = (
        f"{manifest.suite} {manifest.version} · {manifest.environment}{options} · {part}{manifest.tasks} tasks{times}"
    )
    identity, conditions = manifest.identity, manifest.conditions
    if identity.get("kind") in (*BUILT_IN, "human"):
        return [f"suite    {what}", f"policy   {manifest.policy}"]
    who = ", ".join(str(identity[key]) for key in ("kind", "weights", "model") if identity.get(key))
    greedy = conditions.temperature == 0
    how = "greedy" if greedy else f"sampled T={conditions.temperature:g}"
    lines = [
        f"suite    {what}",
        f"policy   {manifest.policy} ({who}) · {how} · at most {conditions.max_tokens} tokens an answer",
    ]
    if plan.attempts > 1 and greedy:
        lines.append("note     attempts of a greedy policy are alike; --temperature 1 samples")
    return lines


async def evaluate(sitting: Sitting, host: Host, tell: Callable[[SuiteRun], None]) -> EvaluationResult:
    """Play what was not played yet; the result of everything in the folder, which is on the disk when this returns.

    Raises what ended it early by force: a cancellation, a server that is gone, a policy that cannot play.
    """
    policy = await sitting.policy.named()
    sitting = replace(sitting, policy=policy, manifest=replace(sitting.manifest, identity=policy.identity))
    try:
        with EvaluationFolder(sitting.folder, sitting.suite, sitting.manifest) as folder:
            stopped = await _sit(sitting, folder, tell)
            result = folder.result(None, stopped)
            result.save(folder.path)
            if sitting.policy.identity != NOBODY:
                played = {attempt.task for attempt in result.attempts}
                result = replace(result, null=await _null_row(_beside(sitting, host, played), tell))
                result.save(folder.path)
            return result
    finally:
        WORKERS.close()


async def _sit(sitting: Sitting, folder: EvaluationFolder, tell: Callable[[SuiteRun], None]) -> str:
    """Why it ended early, if it did. Where it is ended by force, the result says what there is."""

    async def come(stack: AsyncExitStack) -> Player:
        return await sitting.policy.open(stack, folder.path)

    manifest = sitting.manifest
    try:
        async with Heart(folder.path) as heart:
            heart.enter("playing")
            terms = manifest.conditions, manifest.prices
            return await SuiteRun(sitting.suite, come, folder, sitting.plan, *terms, heart.watch).play(tell)
    except BaseException:
        await folder.settle()
        if folder.attempts:
            folder.result(None, INTERRUPTED).save(folder.path)
        raise


def _beside(sitting: Sitting, host: Host, played: Collection[str]) -> Sitting:
    """The null policy on the tasks that were played."""
    manifest = replace(
        sitting.manifest,
        policy=NULL,
        identity=NOBODY,
        conditions=replace(sitting.manifest.conditions, temperature=0.0),
        prices=Prices(),
        command="",
    )
    tasks = tuple(task for task in sitting.suite.tasks if task.id in played)
    plan = Plan(tasks, concurrency=sitting.plan.concurrency)
    return Sitting(sitting.suite, find_policy(NULL, host), sitting.folder / NULL, manifest, plan)


async def _null_row(beside: Sitting, tell: Callable[[SuiteRun], None]) -> NullRow | None:
    """Played once: where its folder holds the tasks already, it is only read."""
    if not beside.plan.tasks:
        return None
    with EvaluationFolder(beside.folder, beside.suite, beside.manifest) as folder:
        result = folder.result(None, await _sit(beside, folder, tell))
        result.save(folder.path)
    return null_row(result, [task.id for task in beside.plan.tasks])


def _slug(name: str) -> str:
    """Fit for a folder's name: of a path its last part, of an address host, port and model."""
    path = Path(name)
    last = (path.stem if path.is_file() else path.name) if path.exists() else name.partition("://")[2] or name
    return re.sub(r"[^\w.+]+", "-", last).strip("-")
