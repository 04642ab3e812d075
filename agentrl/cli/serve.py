"""`agentrl serve`: parses what a policy is to be served with, and tells where it is and what came of it.

Nothing heavy is imported before the command runs.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentrl.cli.flags import EngineName, EngineOptions, Plugins, unfolded

if TYPE_CHECKING:
    from agentrl.runs.endpoint import Serving


@dataclass(frozen=True, slots=True)
class Door:
    """Where clients come in."""

    host: Annotated[str, typer.Option(help="Another one than this machine's own names needs a --key.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000
    key: Annotated[str, typer.Option(envvar="AGENTRL_SERVE_KEY", help="The API key that clients have to give.")] = ""


@dataclass(frozen=True, slots=True)
class Answers:
    """How requests are answered, and how many."""

    temperature: Annotated[float, typer.Option(min=0, help="Where a request names none.")] = 1.0
    max_tokens: Annotated[int, typer.Option(min=1, help="Of an answer, where a request names no number.")] = 1024
    seed: Annotated[int, typer.Option(min=0, help="Of sampling, where a request names none.")] = 0
    sessions: Annotated[int, typer.Option(min=1, help="Open at once.")] = 256
    concurrency: Annotated[int, typer.Option("--concurrency", "-j", min=1, help="Requests sampled at once.")] = 64
    idle: Annotated[float, typer.Option(min=0.001, help="Seconds of silence that end a session unfinished.")] = 600.0


@dataclass(frozen=True, slots=True)
class Sampler:
    """Who samples."""

    engine: EngineName = ""
    engine_option: EngineOptions = None


@unfolded
def command(
    policy: Annotated[str, typer.Argument(help="A run's folder (its newest weights), or a model's folder or name.")],
    out: Annotated[Path | None, typer.Option(help="Folder of what is recorded; served/POLICY by default.")] = None,
    suite: Annotated[str, typer.Option(help="What clients play: results of one suite can be compared.")] = "served",
    *,
    door: Door,
    answers: Answers,
    sampler: Sampler,
    plugin: Plugins = None,
) -> None:
    """Serve a policy as an OpenAI-compatible API that records every session token for token. Ctrl-C ends it."""
    from agentrl.cli.supervised import run_supervised
    from agentrl.endpoint.desk import DeskSettings
    from agentrl.plugins import load_host
    from agentrl.runs.endpoint import ServeSettings, serve_policy
    from agentrl.runs.suites import plugins_of

    desk = DeskSettings(
        temperature=answers.temperature,
        max_tokens=answers.max_tokens,
        seed=answers.seed,
        sessions=answers.sessions,
        concurrency=answers.concurrency,
        idle=answers.idle,
    )
    settings = ServeSettings(
        policy=policy,
        suite=suite,
        out=out,
        host=door.host,
        port=door.port,
        key=door.key,
        desk=desk,
        engine=sampler.engine,
        engine_options=tuple(sampler.engine_option or ()),
        command=shlex.join(["agentrl", *(word for word in sys.argv[1:] if not door.key or door.key not in word)]),
    )
    served: list[Serving] = []

    def tell(serving: Serving) -> None:
        served.append(serving)
        for line in introduction(serving):
            typer.echo(line)

    host_of_plugins = load_host(list(dict.fromkeys([*plugins_of(policy), *(plugin or [])])))
    try:
        run_supervised(serve_policy(settings, host_of_plugins, tell))
    except KeyboardInterrupt:
        if not served:
            raise
        _conclude(served[0].folder)


def introduction(serving: Serving) -> list[str]:
    lines = [
        f"serving  {serving.url}/v1  model {serving.model}  (Ctrl-C ends it)",
        f"session  {serving.url}/v1/s/NAME as base URL, or the header X-Session-Id; finish it with its reward:",
        f"         curl -X POST {serving.url}/v1/sessions/NAME/finish -d '{{\"reward\": 1}}'",
        f"records  {serving.folder}",
    ]
    if serving.cut:
        cut = f"{serving.cut} sessions were open when the last server was killed"
        lines.append(f"note     {cut}: recorded as faults, with their answers")
    return lines


def _conclude(folder: Path) -> None:
    from agentrl.evaluation.result import load_result
    from agentrl.evaluation.table import table

    result = load_result(folder)
    if result.attempts:
        for line in table(result):
            typer.echo(line)
    typer.echo(f"saved    {folder}: {len(result.attempts)} sessions")
    typer.echo(f"next     agentrl view {folder}")
