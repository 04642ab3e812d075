"""`agentrl serve-env NAME`: any environment as an OpenEnv server, until interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Annotated

import typer

from agentrl.cli.env import environment_factory
from agentrl_openenv.hosting import Hosted
from agentrl_openenv.server import HERE, IDLE, SESSIONS, Limits, listen, running


def serve_env(
    name: Annotated[str, typer.Argument(help="An environment.")],
    options: Annotated[list[str] | None, typer.Argument(help="Its options, as key=value.", metavar="KEY=VALUE")] = None,
    host: Annotated[str, typer.Option(help="Where to listen; there is no login.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    sessions: Annotated[int, typer.Option(min=1, help="How many may play at once.")] = SESSIONS,
    idle: Annotated[float, typer.Option(min=1, help="Seconds without a call that end a session.")] = IDLE,
    plugin: Annotated[
        list[str] | None, typer.Option(help="A plugin beside the installed ones: path.py or a.module. Repeatable.")
    ] = None,
) -> None:
    """Serve an environment to OpenEnv clients, each session its own instance."""
    hosted = Hosted(name, environment_factory(name, options or [], plugin or []))
    with listen(host, port) as listening, contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(hosted, Limits(sessions, idle), listening))


async def _serve(hosted: Hosted, limits: Limits, listening: socket.socket) -> None:
    async with running(hosted, limits, listening) as task:
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        typer.echo(
            f"serving  {hosted.name} at http://{shown}:{port}  (OpenEnv; {limits.sessions} sessions; Ctrl-C ends it)"
        )
        if host not in HERE:
            typer.echo("warning  whoever reaches this port can play: there is no login")
        await task
