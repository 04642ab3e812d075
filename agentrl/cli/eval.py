"""`agentrl eval`: what a person asks for, sees while it is played, and reads at the end.

Nothing heavy is imported before the command runs.
"""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentrl.cli.flags import EngineName, EngineOptions, MaxTokens, Plugins, Seed, Temperature, unfolded
from agentrl.errors import MissingDependencyError

if TYPE_CHECKING:
    from agentrl.evaluation.result import EvaluationResult
    from agentrl.evaluation.runner import SuiteRun
    from agentrl.runs.evaluation import EvalSettings

SECONDS_BETWEEN_LINES = 10.0
POLICY = (
    "Who plays: a run's folder (its newest weights), a model's folder or name, http://HOST:PORT/v1#MODEL, or oracle, "
    "null, random, human. Left out where SUITE is a run's folder: that run."
)
SUITE = "A suite (`agentrl list suites`), or a run's folder or a recipe: their held-out tasks."


@dataclass(frozen=True, slots=True)
class Asked:
    """Who plays, how it samples, and how much of the suite."""

    policy: Annotated[str, typer.Option("--policy", "-m", help=POLICY)] = ""
    engine: EngineName = ""
    engine_option: EngineOptions = None
    temperature: Temperature = 0.0
    seed: Seed = 0
    max_tokens: MaxTokens = None
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many tasks.")] = None
    tasks: Annotated[str, typer.Option(help="Only these tasks: ids, with commas between.")] = ""
    attempts: Annotated[int | None, typer.Option("--attempts", "-k", min=1, help="Episodes per task.")] = None
    concurrency: Annotated[int, typer.Option("--concurrency", "-j", min=1, help="Episodes at a time.")] = 16


@dataclass(frozen=True, slots=True)
class Until:
    """What ends it before everything was played."""

    until_ci: Annotated[
        float | None, typer.Option(help="Stop when half the width of the 95 % interval is at most this, such as 0.03.")
    ] = None
    max_seconds: Annotated[float | None, typer.Option(min=0, help="Begin nothing new after so long.")] = None
    max_cost: Annotated[float | None, typer.Option(min=0, help="Begin nothing new once it cost so much.")] = None
    price_prompt: Annotated[float, typer.Option(min=0, help="Per million tokens sent.")] = 0.0
    price_completion: Annotated[float, typer.Option(min=0, help="Per million tokens sampled.")] = 0.0


@unfolded
def command(
    suite: Annotated[str, typer.Argument(help=SUITE)],
    words: Annotated[
        list[str] | None,
        typer.Argument(help="Options of the suite, or keys of the recipe, as key=value.", metavar="KEY=VALUE"),
    ] = None,
    *,
    asked: Asked,
    until: Until,
    out: Annotated[Path | None, typer.Option(help="Folder of the evaluation; evals/SUITE-POLICY by default.")] = None,
    plugin: Plugins = None,
) -> None:
    """Measure a policy on a suite. The same command goes on with what was interrupted; nothing is played twice."""
    from agentrl.evaluation.result import Prices
    from agentrl.runs.evaluation import EvalSettings

    settings = EvalSettings(
        suite=suite,
        policy=asked.policy or _run_itself(suite),
        words=tuple(words or ()),
        out=out,
        limit=asked.limit,
        tasks=tuple(name.strip() for name in asked.tasks.split(",") if name.strip()),
        attempts=asked.attempts,
        temperature=asked.temperature,
        seed=asked.seed,
        max_tokens=asked.max_tokens,
        concurrency=asked.concurrency,
        until_ci=until.until_ci,
        max_seconds=until.max_seconds,
        max_cost=until.max_cost,
        prices=Prices(until.price_prompt, until.price_completion),
        engine=asked.engine,
        engine_options=tuple(asked.engine_option or ()),
        command=shlex.join(["agentrl", *sys.argv[1:]]),
    )
    evaluate(settings, plugin or [])


def evaluate(settings: EvalSettings, plugins: list[str]) -> None:
    """Play and print. Ctrl-C keeps what was played."""
    from agentrl.cli.human import PATIENCE, HumanPolicy
    from agentrl.cli.supervised import run_supervised
    from agentrl.evaluation.table import table
    from agentrl.plugins import load_host
    from agentrl.runs import evaluation
    from agentrl.runs.suites import plugins_of

    host = load_host(list(dict.fromkeys([*plugins_of(settings.suite, settings.policy), *plugins])))
    if settings.policy == "human":
        settings = replace(settings, concurrency=1, episode_deadline=PATIENCE)
    sitting = evaluation.prepare(settings, host, {"human": HumanPolicy(sys.stdin, sys.stdout)})
    progress = Progress()
    for line in evaluation.introduction(sitting):
        typer.echo(line)
    try:
        result = run_supervised(evaluation.evaluate(sitting, host, progress))
    except KeyboardInterrupt:
        typer.echo(f"stopped  everything is saved in {sitting.folder}; the same command goes on from there")
        raise
    for line in table(result):
        typer.echo(line)
    typer.echo(f"saved    {sitting.folder}: {_saved(result, sitting.folder)}")
    typer.echo(f"next     agentrl view {sitting.folder}")


class Progress:
    """A line now and then: how much was played, how it goes, how long it takes still."""

    def __init__(self) -> None:
        self._began = self._told = 0.0
        self._run: SuiteRun | None = None

    def __call__(self, run: SuiteRun) -> None:
        """Told of every attempt; from the first one on the time is taken: until then the policy was started."""
        now = time.monotonic()
        if run is not self._run:
            self._run, self._began, self._told = run, now, now
        if now - self._told < SECONDS_BETWEEN_LINES or not run.left:
            return
        self._told = now
        left = (now - self._began) / max(run.done - 1, 1) * run.left
        cost = f" · cost {run.cost:.4g}" if run.cost else ""
        typer.echo(f"playing  {run.done} played, at most {run.left} left, about {left:.0f} s{cost}")


def _saved(result: EvaluationResult, folder: Path) -> str:
    from agentrl.evaluation.parquet import save_parquet

    try:
        save_parquet(result, folder)
    except MissingDependencyError as error:
        return f"results.json, and every episode ({error})"
    return "results.json, results.parquet, and every episode"


def _run_itself(suite: str) -> str:
    return suite if (Path(suite) / "config.toml").is_file() else ""
