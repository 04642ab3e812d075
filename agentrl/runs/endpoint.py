"""`agentrl serve` from its settings to a server: find the policy, open the folder, answer until interrupted.

What was served is on the disk when this ends, however it ends short of a kill; the next start tells of that.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from agentrl import __version__
from agentrl.endpoint.desk import ENVIRONMENT, Desk, DeskSettings
from agentrl.endpoint.folder import ServedFolder
from agentrl.errors import ConfigError
from agentrl.evaluation.result import Conditions, Manifest
from agentrl.plugins import Host
from agentrl.protocols import Engine
from agentrl.rollout.tokens import TokenPlayer
from agentrl.runs.policies import Policy, Sampled
from agentrl.runs.suites import DISTRIBUTION


@dataclass(frozen=True, slots=True)
class ServeSettings(Sampled):
    """What `agentrl serve` was asked for."""

    policy: str
    suite: str = "served"
    "What clients play: results of one suite may be compared."
    out: Path | None = None
    "served/POLICY where None."
    host: str = "127.0.0.1"
    port: int = 8000
    key: str = ""
    desk: DeskSettings = field(default_factory=DeskSettings)


@dataclass(frozen=True, slots=True)
class Serving:
    """What is told once requests are answered."""

    url: str
    model: str
    folder: Path
    cut: int
    "Sessions that a kill of an earlier server left open."


async def serve_policy(settings: ServeSettings, host: Host, tell: Callable[[Serving], None]) -> None:
    """Answer until cancelled; then end every session and write the result of everything in the folder.

    Raises `ConfigError` for a policy without tokens, `StoreError` where another server has the folder.
    """
    from agentrl.endpoint.routes import routes_of
    from agentrl.endpoint.server import HERE, Gate, bind, listening, make_app

    policy = settings.find(settings.policy, host)
    name = _name(settings.policy)
    path = settings.out or Path("served") / name
    port = bind(settings.host, settings.port, settings.key)
    try:
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(ServedFolder(path, manifest_of(settings, policy)))
            player = await policy.open(stack, path)
            if not isinstance(player, TokenPlayer):
                raise ConfigError(
                    f"{settings.policy} gives no tokens of its own, so nothing could be recorded token for token. "
                    "Serve a run, or a model's folder."
                )
            desk = Desk(player, folder, replace(settings.desk, models=(name,)))
            # A sampler that a policy opened is a whole engine.
            engine = cast(Engine, player.engine)
            gate = Gate(settings.key, HERE if settings.host in HERE else ())
            async with listening(make_app(desk, gate, routes_of(desk, engine.health)), port) as url:
                tell(Serving(url, name, path, folder.cut))
                try:
                    await asyncio.Event().wait()
                finally:
                    await desk.close()
                    folder.result().save(path)
    finally:
        port.close()


def _name(policy: str) -> str:
    """What clients call the model: of a folder its last part."""
    return Path(policy).resolve().name if Path(policy).exists() else policy


def manifest_of(settings: ServeSettings, policy: Policy) -> Manifest:
    return Manifest(
        suite=settings.suite,
        version="served",
        hash=hashlib.sha256(f"served {settings.suite}".encode()).hexdigest()[:16],
        environment=ENVIRONMENT,
        options={},
        tasks=0,
        known_bad={},
        policy=settings.policy,
        identity=policy.identity,
        conditions=Conditions(settings.desk.temperature, settings.desk.seed, settings.desk.max_tokens),
        distributions={DISTRIBUTION: __version__},
        command=settings.command,
    )
