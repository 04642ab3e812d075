"""Checks that tasks and episodes are the same in another process with another hash seed.

A run is resumed in a new process, and its tasks must be there again; sets and `hash()` of text differ between two.
Run as a module, this file is that other process: it reads a request on standard input and writes what it saw.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from agentrl.environment import adapt
from agentrl.options import build
from agentrl.remote.address import Address, address_of, locate
from agentrl.remote.environment import open_remote
from agentrl.testing.episodes import Episode, replay
from agentrl.testing.report import CheckResult, failed, passed, skipped
from agentrl.testing.subject import Subject
from agentrl.tools import plain
from agentrl.types import JSON, Action, Observation, Task, ToolCall

NAME = "processes"
_TASKS = 50
"Tasks of each split that are compared."
_HASH_SEEDS = ("1", "2")
_DEADLINE = 120.0
"Seconds that the other process may take."


def check_processes(subject: Subject, factory: Callable[[], object]) -> CheckResult:
    made_by = reference(factory)
    if made_by is None:
        return skipped(NAME, f"{factory!r} cannot be imported elsewhere: give a class or function of a module")
    recorded = [*subject.oracle[:2], *subject.random[:2]]
    request = {"factory": made_by, "episodes": [_request(episode) for episode in recorded]}
    here = _look(subject.new(), recorded)
    where = subject.where("tasks")
    # Two, since a small set may well have the same order under two seeds; at once, since each has to start Python.
    with ThreadPoolExecutor(len(_HASH_SEEDS)) as pool:
        answers = list(pool.map(functools.partial(_ask, request), _HASH_SEEDS))
    for there, problem in answers:
        if there is None:
            return failed(NAME, f"another process cannot make it: {problem}", where, "Import it from a module.")
        for split, tasks in here["tasks"].items():
            if tasks != there["tasks"][split]:
                pairs = zip(tasks, there["tasks"][split], strict=False)
                at, (one, other) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
                what = f'tasks("{split}") differs between processes at task {at}: {one}, then {other}'[:400]
                return failed(NAME, what, where, "Sort sets, and seed from numbers: hash() of text changes.")
        for index, (ours, theirs) in enumerate(zip(here["episodes"], there["episodes"], strict=True)):
            if ours != theirs:
                at = next(i for i, (a, b) in enumerate(itertools.zip_longest(ours, theirs)) if a != b) - 1
                episode = recorded[index]
                what = f"task {episode.task.id!r} plays otherwise in another process, from step {at} (-1: the reset)"
                advice = "Sort sets before you choose from them; hash() of text changes."
                return failed(NAME, what, subject.where_step(episode, at), advice)
    return passed(NAME, f"tasks and {len(recorded)} episodes are the same under other hash seeds")


def reference(factory: Callable[[], object]) -> JSON | None:
    """How another process finds `factory`: a class or function of a module, or a `functools.partial` of one.

    What has an `address` of its own is made there, in a worker that draws its own hash seed.
    """
    target, keywords = taken_apart(factory)
    try:
        keywords = plain(keywords)
    except ValueError:
        return None
    own = getattr(target, "address", None)
    address = own if isinstance(own, Address) else address_of(target)
    return None if address is None else {"address": asdict(address), "keywords": keywords, "remote": address is own}


def taken_apart(factory: Callable[[], object]) -> tuple[Any, JSON]:
    """The class or function behind a `functools.partial`, also one of `build`, and the options that it is given."""
    if not isinstance(factory, functools.partial):
        return factory, {}
    if factory.func is build and len(factory.args) == 2:
        target, options = factory.args
        return target, dict(options)
    return (factory, {}) if factory.args else (factory.func, factory.keywords)


def _look(environment: Any, recorded: list[Episode]) -> dict[str, Any]:
    tasks = {
        split: [_plain(asdict(task)) for task in itertools.islice(environment.tasks(split), _TASKS)]
        for split in ("train", "test")
    }
    return {"tasks": tasks, "episodes": [_seen(episode) for episode in recorded]}


def _seen(episode: Episode) -> list[JSON]:
    """The reset, then one entry a step."""
    first = _plain(asdict(episode.first))
    return [first, *(_plain(asdict(result)) for result in episode.results)]


def _request(episode: Episode) -> JSON:
    return _plain({"task": asdict(episode.task), "actions": [asdict(action) for action in episode.actions]})


def _plain(value: Any) -> JSON:
    return json.loads(json.dumps(value))


def _ask(request: JSON, hash_seed: str) -> tuple[dict[str, Any] | None, str]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "agentrl.testing.elsewhere"]
    text = json.dumps(request)
    try:
        ran = subprocess.run(
            command, env=environment, input=text, capture_output=True, text=True, timeout=_DEADLINE, check=False
        )
    except subprocess.TimeoutExpired:
        return None, f"it took more than {_DEADLINE:g} s"
    if ran.returncode != 0:
        return None, (ran.stderr.strip().splitlines() or ["no message"])[-1]
    # The author's code may print: the answer is the last line.
    answer: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return answer, ""


def _resolve(made_by: Any) -> Callable[[], object]:
    told = made_by["address"]
    pairs = {name: tuple(map(tuple, told[name])) for name in ("lent", "spare")}
    address = Address(**{**told, **pairs})
    if made_by["remote"]:
        return functools.partial(open_remote, address, made_by["keywords"])
    return functools.partial(build, locate(address), made_by["keywords"], where=address.name)


async def _answer(request: Any) -> dict[str, Any]:
    make = _resolve(request["factory"])
    played = []
    for asked in request["episodes"]:
        task = Task(**{**asked["task"], "tags": tuple(asked["task"]["tags"])})
        actions = [_action(action) for action in asked["actions"]]
        environment = adapt(make())
        played.append(await replay(environment, Episode(task, Observation(()), actions)))
        await environment.close()
    environment = adapt(make())
    seen = _look(environment, played)
    await environment.close()
    return seen


def _action(value: Any) -> Action:
    return Action(**{**value, "tool_calls": tuple(ToolCall(**call) for call in value["tool_calls"])})


if __name__ == "__main__":
    print("\n" + json.dumps(asyncio.run(_answer(json.load(sys.stdin)))))
