"""`agentrl play NAME`: a person is the model, in a terminal or through a pipe.

The person sees what the model would see, and what they type is checked as the model's calls are.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from agentrl.environment import adapt
from agentrl.errors import ConfigError, did_you_mean
from agentrl.protocols import Environment
from agentrl.tools import signature
from agentrl.types import Action, Observation, StepResult, Task, ToolCall, ToolSpec

_LOOK = 1000
"Tasks that are searched for an id, or drawn from with a seed."
HELP = 'Type a call (`1 value`, `name key=value`, JSON {"name": ..., "arguments": ...}), text to speak, `?` or `quit`.'


def play_environment(
    environment: object,
    reader: TextIO,
    writer: TextIO,
    *,
    split: str = "train",
    task_id: str | None = None,
    seed: int | None = None,
) -> bool:
    """Play one episode; returns whether it succeeded. Ends at the end of input.

    The first task of `split`, or `task_id`, or one drawn with `seed`. Raises `ConfigError` for an unknown task.
    """
    world = adapt(environment)
    task = choose_task(world, split, task_id, seed)
    return asyncio.run(_play(world, task, reader, writer))


def choose_task(environment: Environment, split: str, task_id: str | None, seed: int | None) -> Task:
    tasks = list(itertools.islice(environment.tasks(split), 1 if task_id is None and seed is None else _LOOK))
    if not tasks:
        raise ConfigError(f"the split {split!r} has no tasks. Splits are 'train' and 'test'.")
    if task_id is not None:
        by_id = {task.id: task for task in tasks}
        if task_id not in by_id:
            shown = ", ".join(itertools.islice(by_id, 5))
            hint = did_you_mean(task_id, by_id)
            raise ConfigError(f"no task of {split!r} is called {task_id!r}.{hint} The first are: {shown}.")
        return by_id[task_id]
    return tasks[0] if seed is None else random.Random(seed).choice(tasks)


def parse_line(line: str, tools: Sequence[ToolSpec]) -> Action:
    """What a person typed, as an action. Raises `ConfigError` where it looks like a call and is none."""
    by_name = {spec.name: spec for spec in tools}
    text = line.strip()
    if text.startswith("{"):
        return _from_json(text)
    head, _, rest = text.partition(" ")
    spec = by_name.get(head)
    if head.isdecimal() and 1 <= int(head) <= len(tools):
        spec = tools[int(head) - 1]
    if spec is None:
        return Action(text=text.removeprefix("say ") if head == "say" else text)
    return Action(tool_calls=(ToolCall(spec.name, _arguments(spec, rest)),))


async def _play(environment: Environment, task: Task, reader: TextIO, writer: TextIO) -> bool:
    def say(text: str) -> None:
        print(text, file=writer, flush=True)

    total = 0.0
    try:
        say(f"task {task.id}")
        show(await environment.reset(task), say)
        tools = environment.tools()
        show_tools(tools, say)
        say(HELP)
        while True:
            action = await next_action(tools, reader, writer)
            if action is None:
                say(f"left the episode; return so far {total:g}")
                return False
            result = await environment.step(action)
            total += result.reward
            show(result.observation, say)
            if result.policy_error:
                say("[a mistake of the model]")
            if result.reward:
                say(f"[reward {result.reward:+g}]")
            if result.terminated or result.truncated:
                return _finish(result, total, say)
    finally:
        await environment.close()


async def next_action(tools: Sequence[ToolSpec], reader: TextIO, writer: TextIO) -> Action | None:
    """None at the end of input."""
    while True:
        print("> ", end="", file=writer, flush=True)
        line = await asyncio.to_thread(reader.readline)
        if not reader.isatty():
            print(line.rstrip("\n"), file=writer)
        if not line or line.strip() in ("quit", "exit"):
            return None
        if line.strip() == "?":
            show_tools(tools, lambda text: print(text, file=writer))
            print(HELP, file=writer)
            continue
        try:
            return parse_line(line, tools)
        except ConfigError as error:
            print(error, file=writer)


def show(observation: Observation, say: Any) -> None:
    for message in observation.messages:
        calls = (f"{made.name} {json.dumps(made.arguments, ensure_ascii=False)}" for made in message.tool_calls)
        shown = "\n".join(filter(None, (message.content, *calls)))
        say(f"[{message.name or message.role}] {shown}")


def show_tools(tools: Sequence[ToolSpec], say: Any) -> None:
    for number, spec in enumerate(tools, 1):
        say(f"{number:>3}  {signature(spec)}  {spec.description.partition(chr(10))[0]}")


def _finish(result: StepResult, total: float, say: Any) -> bool:
    how = "done" if result.terminated else "out of steps"
    scores = ", ".join(f"{name} {value:g}" for name, value in result.scores.items())
    say(f"{how}: return {total:g}{f' ({scores})' if scores else ''}")
    return result.scores["success"] > 0 if "success" in result.scores else total > 0


def _from_json(text: str) -> Action:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"this is not JSON ({error}). {HELP}") from error
    name, arguments = value.get("name"), value.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise ConfigError('a call in JSON is {"name": "tool", "arguments": {...}}.')
    return Action(tool_calls=(ToolCall(name, arguments),))


def _arguments(spec: ToolSpec, text: str) -> dict[str, Any]:
    """`key=value` pairs, and bare values for the parameters in their order."""
    properties: Mapping[str, Any] = spec.parameters.get("properties", {})
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{error} in {text!r}. Close the quotation.") from error
    arguments: dict[str, Any] = {}
    free = list(properties)
    for word in words:
        key, equals, value = word.partition("=")
        if not (equals and key in properties):
            if equals and key.isidentifier():
                raise ConfigError(f"{spec.name} has no argument {key!r}.{did_you_mean(key, properties)}")
            if not free:
                raise ConfigError(f"{word!r} is one value too many. The call is {signature(spec)}.")
            key, value = free[0], word
        if key in free:
            free.remove(key)
        arguments[key] = _value(value, properties[key])
    return arguments


def _value(text: str, schema: Mapping[str, Any]) -> Any:
    """Text where the schema takes text, otherwise what the text says as JSON."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    kinds = _kinds(schema)
    return text if "string" in kinds and not (value is None and "null" in kinds) else value


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return {"string" if isinstance(value, str) else "other" for value in values}
    inner = [kind for option in schema.get("anyOf", ()) for kind in _kinds(option)]
    return {*inner, str(schema.get("type", ""))}
