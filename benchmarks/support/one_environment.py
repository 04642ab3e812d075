"""One environment, measured in a process of its own: `python -m support.one_environment REQUEST`, both ways JSON.

The same recorded lines of play are played wherever the environment may run, in turn, so that what differs is the way
to it and back.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

import agentrl
from agentrl import Action, Env, Task
from agentrl.agents import oracle_agent, random_agent
from agentrl.environment import adapt
from agentrl.options import check_options
from agentrl.plugins import load_host
from agentrl.protocols import Environment, HasOracle
from agentrl.remote.address import address_of
from agentrl.remote.environment import RemoteEnvironment, open_remote
from agentrl.remote.pool import WORKERS
from support.memory import family, proportional
from support.results import middle

Make = Callable[[], Environment]
SLOW = 2.0
"Seconds of a first reset from which on there is one more instance instead of several, and two episodes are recorded."
_LONGEST = 200
"Actions of one recorded episode."
_PATIENCE = 1.0
"Seconds of steps after which a slow episode is left, however short a round is."


class Request(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    options: dict[str, Any]
    episodes: int
    "Recorded, and played over and over."
    rounds: int
    seconds: float
    "Of one round in one place."
    instances: int
    "More of them, whose memory is taken."
    patience: float
    "Seconds that all of it may take."


@dataclass(frozen=True, slots=True)
class Line:
    task: Task
    actions: tuple[Action, ...]


@dataclass(slots=True)
class Played:
    """What some episodes took."""

    steps: int = 0
    seconds: float = 0.0
    "Within `step` alone."
    resets: list[float] = field(default_factory=list)


def places(made: object, factory: Callable[[], object], folder: Path) -> dict[str, Make]:
    """Where it may run, its own place first. One that its author put into a process stays there."""

    def at(place: Any) -> Make:
        def make() -> Environment:
            author = factory()
            assert isinstance(author, Env)
            author.runs_in = place
            return adapt(author)

        return make

    if not isinstance(made, Env):
        own = "own venv" if isinstance(made, RemoteEnvironment) else getattr(made, "runs_in", "async")
        return {own: lambda: adapt(factory())}
    if made.runs_in == "process":
        return {"process": at("process")}
    found = {place: at(place) for place in (made.runs_in, "loop", "thread", "process")}
    address = address_of(type(made))
    if address is not None:
        lent = {top: _home(top) for top in ("agentrl", address.module.partition(".")[0])}
        there = replace(address, file="", python=_interpreter(folder), lent=tuple(sorted(lent.items())))
        options = dict(made._made_with)
        found["own venv"] = lambda: open_remote(there, options)
    return found


def _interpreter(folder: Path) -> str:
    """A virtual environment that sees our packages: what it costs is another interpreter, not other versions."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "ours.pth").write_text("\n".join(path for path in sys.path if path and Path(path).is_dir()))
    # A package may look for a program of its own beside the interpreter, as pydantic-monty does.
    for program in Path(sysconfig.get_path("scripts")).iterdir():
        if not (folder / "bin" / program.name).exists():
            (folder / "bin" / program.name).symlink_to(program)
    return str(folder / "bin" / "python")


def _home(package: str) -> str:
    module = agentrl if package == "agentrl" else sys.modules[package]
    assert module.__file__ is not None
    return module.__file__


async def record(make: Make, tasks: Sequence[Task]) -> tuple[str, list[Line], float]:
    """Who plays, what it plays, and the seconds of the very first reset, with all that it starts."""
    lines, first, who = [], 0.0, "random"
    for number, task in enumerate(tasks):
        environment = make()
        try:
            began = time.perf_counter()
            observation = await environment.reset(task)
            first = first or time.perf_counter() - began
            has_oracle = isinstance(environment, HasOracle)
            who = "oracle" if has_oracle else "random"
            agent = (oracle_agent if has_oracle else random_agent)(environment, task)
            actions, rng, over = [], random.Random(number), False
            while not over and len(actions) < _LONGEST:
                actions.append(agent.act(observation, environment.tools(), rng))
                result = await environment.step(actions[-1])
                observation, over = result.observation, result.terminated or result.truncated
        finally:
            await environment.close()
        lines.append(Line(task, tuple(actions)))
        if first > SLOW and len(lines) == 2:
            break
    return who, lines, first


async def play(make: Make, lines: Sequence[Line], seconds: float) -> Played:
    """Episodes one after the other, each in a new instance, until `seconds` of steps and resets are over."""
    done = Played()
    number = 0
    while number == 0 or done.seconds + sum(done.resets) < seconds:
        line = lines[number % len(lines)]
        number += 1
        environment = make()
        try:
            began = time.perf_counter()
            await environment.reset(line.task)
            done.resets.append(time.perf_counter() - began)
            for action in line.actions:
                began = time.perf_counter()
                result = await environment.step(action)
                done.seconds += time.perf_counter() - began
                done.steps += 1
                if result.terminated or result.truncated or done.seconds > max(2 * seconds, _PATIENCE):
                    break
        finally:
            await environment.close()
    return done


async def memory(make: Make, line: Line, count: int) -> float:
    """Bytes that one more instance in mid-episode takes, with all that it started."""
    WORKERS.close()
    # One stays, so that what all instances share is there before.
    async with AsyncExitStack() as stack:
        sizes = []
        for several in (1, count):
            for _ in range(several):
                environment = make()
                stack.push_async_callback(environment.close)
                await environment.reset(line.task)
                if len(line.actions) > 1:
                    await environment.step(line.actions[0])
            gc.collect()
            sizes.append(proportional(family()))
        return (sizes[1] - sizes[0]) / count


async def measure(request: Request, folder: Path) -> dict[str, Any]:
    began = time.perf_counter()
    factory = load_host().factory("environments", request.name)
    given = check_options(factory, request.options).values

    def make() -> object:
        return factory(**given)

    made = make()
    import_seconds = time.perf_counter() - began
    where = places(made, make, folder)
    own = next(iter(where))
    tasks = list(islice(adapt(made).tasks("train"), request.episodes))
    who, lines, first = await record(where[own], tasks)
    rounds: dict[str, list[Played]] = {place: [] for place in where}
    for _ in range(request.rounds):
        for place, at in where.items():
            rounds[place].append(await play(at, lines, request.seconds))
    used = await memory(where[own], lines[0], 1 if first > SLOW else request.instances)
    WORKERS.close()
    return {
        "runs_in": own,
        "played_by": who,
        "steps_an_episode": middle([float(len(line.actions)) for line in lines])["median"],
        "made_seconds": round(import_seconds, 3),
        "first_reset_seconds": round(first, 6),
        "reset_seconds": middle([seconds for done in rounds[own] for seconds in done.resets])["median"],
        "bytes_per_instance": round(used),
        "places": {
            place: {
                "steps": sum(one.steps for one in done),
                "us_per_step": middle([1e6 * one.seconds / one.steps for one in done]),
            }
            for place, done in rounds.items()
        },
    }


def main() -> None:
    request = msgspec.json.decode(sys.argv[1], type=Request)
    with tempfile.TemporaryDirectory() as folder:
        told = asyncio.run(asyncio.wait_for(measure(request, Path(folder)), request.patience))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
