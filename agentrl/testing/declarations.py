"""Checks of what an environment declares: its tools and its tasks. No episode is played.

A task and a call travel between processes and lie in the ledger, so both must survive JSON unchanged.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping, Sequence

from pydantic_core import to_jsonable_python

from agentrl.agents import random_arguments
from agentrl.protocols import Environment
from agentrl.testing.episodes import blaming
from agentrl.testing.report import CheckResult, failed, passed, skipped
from agentrl.testing.subject import Subject
from agentrl.tools import Tool, ToolError, tools_of
from agentrl.types import JSON, Task

_PROBE = 200
"Tasks of each split that are read."


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
    return passed("tools", f"{len(subject.tools)}: {', '.join(spec.name for spec in subject.tools)}")


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
