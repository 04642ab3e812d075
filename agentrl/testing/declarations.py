"""Checks of what an environment declares: its tools and its tasks. No episode is played.

A task and a call travel between processes and lie in the ledger, so both must survive JSON unchanged.
"""

from __future__ import annotations

import difflib
import itertools
import json
import random
from collections.abc import Mapping, Sequence
from inspect import isfunction

from pydantic_core import to_jsonable_python

from agentrl.agents import random_arguments
from agentrl.environment import Env
from agentrl.protocols import Environment
from agentrl.testing.episodes import blaming
from agentrl.testing.report import CheckResult, failed, passed, skipped
from agentrl.testing.subject import Subject
from agentrl.tools import Tool, ToolError, tools_of
from agentrl.types import JSON, Task

_NAMED = 12
"Tools that the report names."
_PROBE = 200
"Tasks of each split that are read."
_NEAR = 0.8
"How alike (0 to 1) two names are, of which one is taken for a slip of the other."


def check_construct(subject: Subject) -> CheckResult:
    """A name that is a slip of one of `Env`'s is never read, so the environment is not the one that was meant."""
    owner = subject.owner
    for name, meant in _slips(owner).items():
        advice = f"Call it {meant!r}, or `_{name}` if it is your own."
        what = f"nothing reads {owner.__name__}.{name}; an `Env` has {meant!r}"
        return failed("construct", what, subject.where(name), advice)
    return passed("construct", f"{subject.name} at {subject.where('__init__', 'reset')}")


def check_tools(subject: Subject) -> CheckResult:
    """Each schema admits calls that validate, and a validated call survives JSON."""
    rng = random.Random(subject.seed)
    if not subject.tools:
        return skipped("tools", "it has no tools: the model can only speak")
    described = tools_of(subject.owner)
    for spec in subject.tools:
        where = subject.where(spec.name, "tools")
        if not spec.description:
            advice = "Write a docstring: its first line is what the model reads."
            return failed("tools", f"the tool {spec.name!r} has no description", where, advice)
        if spec.parameters.get("type") != "object" or not _survives(spec.parameters):
            advice = "The parameters are one JSON schema of type object."
            return failed("tools", f"the schema of {spec.name!r} is {spec.parameters!r}", where, advice)
        draws = [random_arguments(spec, rng) for _ in range(16)]
        if not all(_survives(arguments) for arguments in draws):
            advice = "Use JSON types in the schema."
            return failed("tools", f"a call of {spec.name!r} changes on its way through JSON", where, advice)
        if spec.name in described and (problem := _round_trip(described[spec.name], draws)):
            advice = "The schema must describe what the annotations accept."
            return failed("tools", f"{spec.name!r}: {problem}", where, advice)
    names = [spec.name for spec in subject.tools]
    shown = [*names[:_NAMED], *([f"and {len(names) - _NAMED} more"] if len(names) > _NAMED else [])]
    return passed("tools", f"{len(names)}: {', '.join(shown)}")


def _slips(owner: type) -> dict[str, str]:
    """Names of the author's that nothing reads, each with the one of `Env` that it resembles."""
    if not issubclass(owner, Env):
        return {}
    own = {
        name: value for base in reversed(owner.__mro__) if base not in Env.__mro__ for name, value in vars(base).items()
    }
    free = {name: value for name, value in vars(Env).items() if name not in own and not name.startswith("_")}
    tools = tools_of(owner)
    slips: dict[str, str] = {}
    for name, value in own.items():
        if name.startswith("_") or name in tools or hasattr(Env, name):
            continue
        alike = [known for known, default in free.items() if isfunction(default) == isfunction(value)]
        for meant in difflib.get_close_matches(name, alike, n=1, cutoff=_NEAR):
            slips[name] = meant
    return slips


def check_tasks(subject: Subject, count: int) -> CheckResult:
    """Reads the tasks and fills `subject.sample` with `count` of them from both splits."""
    where = subject.where("tasks")
    splits: dict[str, list[Task]] = {}
    for split in ("train", "test"):
        first = _read(subject.new(), split)
        again = _read(subject.new(), split)
        if not first:
            advice = "Yield tasks for both splits; nothing can be learnt or measured without."
            return failed("tasks", f'tasks("{split}") is empty', where, advice)
        if first != again:
            at = next((i for i, (a, b) in enumerate(zip(first, again, strict=False)) if a != b), len(again))
            advice = "Derive tasks from constants or a seeded random.Random, never from global state."
            return failed("tasks", f'tasks("{split}") differs from call to call, at task {at}', where, advice)
        if problem := _bad_task(first):
            return failed("tasks", f'tasks("{split}"): {problem[0]}', where, problem[1])
        splits[split] = first
    if shared := {task.id for task in splits["train"]} & {task.id for task in splits["test"]}:
        advice = "Held-out tasks share nothing with training: give them seeds and entities of their own."
        what = f"{len(shared)} ids are in train and in test: {', '.join(sorted(shared)[:3])}"
        return failed("tasks", what, where, advice)
    rng = random.Random(subject.seed)
    half = (count + 1) // 2
    drawn = [
        rng.sample(splits[split], min(wanted, len(splits[split])))
        for split, wanted in (("train", half), ("test", count - half))
    ]
    # In turns, since of a slow world only the first are played.
    subject.sample += [task for pair in itertools.zip_longest(*drawn) for task in pair if task is not None]
    sizes = ", ".join(f"{_size(tasks)} {split}" for split, tasks in splits.items())
    return passed("tasks", f"{sizes}; JSON, unique, stable, apart")


def _read(environment: Environment, split: str) -> list[Task]:
    with blaming(environment, "tasks"):
        return list(itertools.islice(environment.tasks(split), _PROBE))


def _bad_task(tasks: list[Task]) -> tuple[str, str] | None:
    seen: set[str] = set()
    for task in tasks:
        if not isinstance(task.id, str) or not task.id:
            return f"a task has id {task.id!r}", "An id is a non-empty str."
        if task.id in seen:
            return f"the id {task.id!r} is used twice", "Ids are unique: they name the task in the ledger."
        seen.add(task.id)
        if not isinstance(task.seed, int) or not isinstance(task.data, Mapping):
            return f"task {task.id!r} has seed {task.seed!r} and data {task.data!r}", "An int and a dict are needed."
        if not _survives(dict(task.data)):
            shown = repr(dict(task.data))[:100]
            advice = "Use str, numbers, bool, None, lists and dicts with str keys; no tuples, sets or objects."
            return f"the data of task {task.id!r} do not survive JSON: {shown}", advice
    return None


def _survives(value: object) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError):
        return False


def _round_trip(tool: Tool, draws: Sequence[Mapping[str, JSON]]) -> str:
    """What is wrong with the tool's schema, or an empty string."""
    accepted = 0
    reason = ""
    for arguments in draws:
        try:
            checked = tool.validate(arguments)
        except ToolError as error:
            reason = str(error)
            continue
        accepted += 1
        encoded = to_jsonable_python(checked)
        try:
            again = tool.validate(encoded)
        except ToolError as error:
            return f"its own arguments {encoded!r} are refused when they come back: {error}"
        if again != checked:
            return f"arguments {checked!r} came back as {again!r}"
    return "" if accepted else f"no call drawn from its schema is valid, for example: {reason}"


def _size(tasks: list[Task]) -> str:
    return f"{len(tasks)}" if len(tasks) < _PROBE else f"{_PROBE}+"
