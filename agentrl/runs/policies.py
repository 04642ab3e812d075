"""Who is evaluated: from the words behind `-m` to a player.

A policy says what tells it from others before anything is started, so that a wrong folder is refused at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from agentrl.agents import Agent, null_agent, oracle_agent, random_agent
from agentrl.config import load_config, recipes
from agentrl.errors import ConfigError, InfrastructureFault, StoreError, UnknownNameError
from agentrl.options import parse_options
from agentrl.plugins import Host
from agentrl.protocols import ContextPolicy, Environment
from agentrl.rollout.advice import AdvisedPlayer
from agentrl.rollout.agents import AgentPlayer
from agentrl.rollout.chat import ChatPlayer
from agentrl.rollout.decisions import Player
from agentrl.rollout.tokens import TokenPlayer
from agentrl.runs.folder import RunFolder
from agentrl.runs.serving import serve
from agentrl.sections import Config, Part
from agentrl.types import JSON, Task

BUILT_IN: Mapping[str, Callable[[Environment, Task], Agent]] = {
    "oracle": oracle_agent,
    "null": null_agent,
    "random": random_agent,
}
"Policies without a model."
NOTHING: Mapping[str, JSON] = {}
_APPEND = Part(name="append")
_EDGE = 1 << 20
"Bytes at both ends of a file that its fingerprint is taken of."


class Policy(Protocol):
    """Who plays, before it is started."""

    @property
    def identity(self) -> Mapping[str, JSON]:
        """What tells it from others."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """Sampled tokens per answer that it was made for; None where it does not mind."""
        ...

    async def named(self) -> Policy:
        """Itself, with an `identity` that is complete: an API may have to be asked for its model."""
        ...

    async def open(self, stack: AsyncExitStack, folder: Path) -> Player:
        """Start it; `stack` ends it. `folder` is for logs. Raises what says why it cannot play."""
        ...


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """An agent that needs no model."""

    name: str
    choose: Callable[[Environment, Task], Agent]
    max_tokens: int | None = None

    @property
    def identity(self) -> Mapping[str, JSON]:
        return {"kind": self.name}

    async def named(self) -> Policy:
        return self

    async def open(self, stack: AsyncExitStack, folder: Path) -> Player:
        return AgentPlayer(self.choose)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model behind an OpenAI-compatible API: a vLLM server, or anyone's."""

    host: Host
    url: str
    model: str
    "Empty: the one that the server has, until it is `named`."
    engine: Part
    max_tokens: int | None = None

    @property
    def identity(self) -> Mapping[str, JSON]:
        return {"kind": "api", "url": self.url, "model": self.model, "engine": dict(self.engine.options)}

    async def named(self) -> Policy:
        """Raises `InfrastructureFault` where the server does not say, `ConfigError` where it has several models."""
        return self if self.model else replace(self, model=await self._only_model())

    async def open(self, stack: AsyncExitStack, folder: Path) -> Player:
        """Raises `InfrastructureFault` where the server does not answer."""
        options = {"base_url": self.url, "model": self.model, **self.engine.options}
        engine = self.host.create("engines", self.engine.name, options)
        stack.push_async_callback(engine.close)
        health = await engine.health()
        if not health.ok:
            raise InfrastructureFault(f"the API at {self.url} cannot be reached: {health.detail}")
        return ChatPlayer(engine)

    async def _only_model(self) -> str:
        from agentrl.engines.http import HttpClient

        try:
            async with HttpClient(self.url, timeout=10.0, attempts=1) as client:
                answer = await client.get_json("models")
        except InfrastructureFault as fault:
            raise InfrastructureFault(
                f"the API at {self.url} does not say which models it has: {fault} Name one: -m {self.url}#MODEL."
            ) from fault
        try:
            names = [str(entry["id"]) for entry in answer["data"]]
        except (TypeError, KeyError) as error:
            raise InfrastructureFault(f"{self.url}/models answered something else than a list of models.") from error
        if len(names) != 1:
            raise ConfigError(
                f"{self.url} has {len(names)} models: {', '.join(names[:8])}. Name one: -m {self.url}#MODEL."
            )
        return names[0]


@dataclass(frozen=True, slots=True)
class Weights:
    """A model in a folder, sampled in process or by a server that is started for it."""

    host: Host
    path: Path
    identity: Mapping[str, JSON]
    engine: Part
    renderer: str = "auto"
    context: Part = _APPEND
    given: Mapping[str, Any] = field(default_factory=dict)
    "What a run knows of its engine: dtype, device, the longest context."
    max_tokens: int | None = None
    experience: Path | None = None
    "A checkpoint that holds experiences: every prompt shows them."

    async def named(self) -> Policy:
        return self

    async def open(self, stack: AsyncExitStack, folder: Path) -> Player:
        from agentrl.models import load_model, load_tokenizer

        given = {"device": _device(), **self.given}

        def load() -> Any:
            return load_model(self.path, dtype=given.get("dtype", "float32"), device=given["device"])

        renderer = self.host.factory("renderers", self.renderer)(load_tokenizer(self.path))
        context: ContextPolicy = self.host.create("context_policies", self.context.name, self.context.options)
        offered = {"model_path": self.path, "log_folder": folder, **given}
        engine = await serve(self.host, self.engine, offered, load, stack)
        player = TokenPlayer(engine, renderer, context)
        if self.experience is None:
            return player
        from agentrl.training.experience import Bounds, ExperienceLearner

        learner = ExperienceLearner(load(), Bounds())
        learner.load(self.experience)
        return AdvisedPlayer(player, learner.advice)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """How a command was asked to sample; its settings inherit it."""

    engine: str = ""
    "Who samples; transformers for weights, openai for an API where empty."
    engine_options: tuple[str, ...] = ()
    "As key=value."
    command: str = ""
    "As it was typed."

    def find(self, policy: str, host: Host) -> Policy:
        """As `find_policy`."""
        return find_policy(policy, host, self.engine, parse_options(self.engine_options))


def find_policy(name: str, host: Host, engine: str = "", options: Mapping[str, JSON] = NOTHING) -> Policy:
    """A built-in one, an API, a run's newest weights, or a model. `options` are the engine's.

    Raises `ConfigError` that says what is allowed.
    """
    if name in BUILT_IN:
        if engine or options:
            raise ConfigError(f"{name} plays without a model, so it takes no --engine and no -e; leave them out.")
        return BuiltIn(name, BUILT_IN[name])
    if name.startswith(("http://", "https://")):
        url, _, model = name.partition("#")
        return Endpoint(host, url.rstrip("/"), model, Part(name=engine or "openai", **options))
    chosen = Part(name=engine or "transformers", **options)
    if (Path(name) / "config.toml").is_file():
        return _of_run(Path(name), host, chosen)
    _no_policy(Path(name), name)
    from agentrl.models import resolve

    try:
        path = resolve(name)
    except UnknownNameError as error:
        raise UnknownNameError(
            f"nobody is called {name!r}: it is no run's folder, no address (http://HOST:PORT/v1#MODEL) and none of "
            f"{', '.join([*BUILT_IN, 'human'])}; {error}"
        ) from error
    return Weights(host, path, _identity("model", name, path, chosen), chosen)


def _no_policy(path: Path, name: str) -> None:
    """Raises `ConfigError` for what is there and is neither a run nor a model."""
    if path.is_dir() and not (path / "config.json").is_file():
        raise ConfigError(
            f"{name} is nobody's folder: a run's has a config.toml, a model's has a config.json, and it has neither."
        )
    if path.is_file() or (name in recipes() and not path.is_dir()):
        raise ConfigError(
            f"{name} is {'a recipe' if name in recipes() or path.suffix == '.toml' else 'a file'} and no policy: "
            "give the folder of a run (`agentrl train RECIPE` makes one) or of a model."
        )


def _of_run(folder: Path, host: Host, engine: Part) -> Policy:
    config = load_config(folder / "config.toml")
    weights, experience = _newest(folder, config)
    rollout = config.rollout
    told = dict(_identity("run", str(folder), weights, engine), renderer=config.model.renderer)
    if experience is not None:
        told["experience"] = _fingerprint(experience)
    return Weights(
        host,
        weights,
        told,
        engine,
        renderer=config.model.renderer,
        context=rollout.context,
        given={"max_context": rollout.max_context, "dtype": config.model.dtype},
        max_tokens=rollout.max_tokens,
        experience=experience,
    )


def _newest(folder: Path, config: Config) -> tuple[Path, Path | None]:
    """The run's newest weights, and where it learns experiences instead, the checkpoint that holds them."""
    run = RunFolder(folder)
    checkpoints = sorted((folder / "checkpoints").glob("batch-*"))
    if checkpoints and (checkpoints[-1] / "model").is_dir():
        return checkpoints[-1] / "model", None
    start = run.warm_model if run.warm_model.is_dir() else run.blank_model
    if config.model.path is not None and not start.is_dir():
        from agentrl.models import resolve

        start = resolve(config.model.path)
    if not start.is_dir():
        raise ConfigError(f"the run {folder} has no weights yet; train it first, or give another -m.")
    return start, checkpoints[-1] if checkpoints else None


def _identity(kind: str, name: str, weights: Path, engine: Part) -> Mapping[str, JSON]:
    return {
        "kind": kind,
        "name": name,
        "weights": weights.parent.name if kind == "run" else weights.name,
        "fingerprint": _fingerprint(weights),
        "engine": {"name": engine.name, **engine.options},
    }


def _fingerprint(folder: Path) -> str:
    """Of the names and sizes of the files and of both ends of each: training changes all of a file's weights."""
    told = hashlib.sha256()
    try:
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            size = path.stat().st_size
            told.update(f"{path.name}\0{size}\0".encode())
            with path.open("rb") as file:
                told.update(file.read(_EDGE))
                file.seek(max(0, size - _EDGE))
                told.update(file.read(_EDGE))
    except OSError as error:
        raise StoreError(f"the weights in {folder} cannot be read: {error}.") from error
    return told.hexdigest()[:16]


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
