"""Agents that need no model: one that says nothing, one that calls at random, one that follows a script.

An agent sees what a model would see (observation and tools) and nothing else; only who chooses it looks into the world.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from agentrl.errors import ConfigError, InvalidDataError
from agentrl.protocols import Environment, HasOracle
from agentrl.types import JSON, Action, Observation, Task, ToolCall, ToolSpec


class Agent(Protocol):
    """Who decides. One agent plays one episode."""

    def act(self, observation: Observation, tools: Sequence[ToolSpec], rng: random.Random) -> Action: ...


class NullAgent:
    """Says nothing: an empty text, every time."""

    def act(self, observation: Observation, tools: Sequence[ToolSpec], rng: random.Random) -> Action:
        return Action()


class RandomAgent:
    """Calls a random tool with random arguments that fit its schema.

    Strings and whole numbers are often taken from what was shown, as a model without a clue would do. Without tools
    it says one of the words that it was shown.
    """

    def __init__(self) -> None:
        self._words: list[str] = []

    def act(self, observation: Observation, tools: Sequence[ToolSpec], rng: random.Random) -> Action:
        shown = " ".join(message.content for message in observation.messages)
        self._words = list(dict.fromkeys([*self._words, *re.findall(r"\w+", shown)]))[-500:]
        if not tools:
            return Action(text=_word(self._words, rng))
        spec = rng.choice(tools)
        return Action(tool_calls=(ToolCall(spec.name, random_arguments(spec, rng, self._words)),))


class ScriptedAgent:
    """Plays given actions in order (an oracle's, a cheat's, a recording's), then says nothing."""

    def __init__(self, actions: Iterable[Action]) -> None:
        self._actions = iter(actions)
        self.exhausted = False
        "True once it was asked for more actions than it was given."

    def act(self, observation: Observation, tools: Sequence[ToolSpec], rng: random.Random) -> Action:
        action = next(self._actions, None)
        if action is None:
            self.exhausted = True
            return Action()
        return action


def null_agent(environment: Environment, task: Task) -> Agent:
    return NullAgent()


def random_agent(environment: Environment, task: Task) -> Agent:
    return RandomAgent()


def oracle_agent(environment: Environment, task: Task) -> ScriptedAgent:
    """The environment's own winning line. Call it after the reset. Raises `ConfigError` where there is none."""
    if not isinstance(environment, HasOracle):
        raise ConfigError(
            f"the environment of task {task.id!r} has no oracle, so nothing plays it without a model but 'null' and "
            "'random'. Give it an `oracle(self, task)`."
        )
    return ScriptedAgent(environment.oracle(task))


def random_arguments(spec: ToolSpec, rng: random.Random, words: Sequence[str] = ()) -> dict[str, JSON]:
    """Arguments that fit the schema of `spec`; optional ones are left out half of the time."""
    properties = spec.parameters.get("properties", {})
    required = set(spec.parameters.get("required", ()))
    definitions = spec.parameters.get("$defs", {})
    return {
        name: random_value(schema, rng, words, definitions)
        for name, schema in properties.items()
        if name in required or rng.random() < 0.5
    }


def random_value(
    schema: Mapping[str, Any],
    rng: random.Random,
    words: Sequence[str] = (),
    definitions: Mapping[str, Any] | None = None,
    depth: int = 0,
) -> JSON:
    """A value that fits a JSON schema of the kind that tools have. Raises `InvalidDataError` for an unknown type."""
    definitions = definitions or {}
    if "$ref" in schema:
        schema = definitions[str(schema["$ref"]).rsplit("/", 1)[-1]]
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            options = schema[key]
            plain = [option for option in options if option.get("type") == "null"] if depth > 3 else []
            return random_value(rng.choice(plain or options), rng, words, definitions, depth + 1)
    if "allOf" in schema:
        return random_value(schema["allOf"][0], rng, words, definitions, depth + 1)
    kind = schema.get("type", "string")
    if kind == "integer":
        return _integer(schema, rng, words)
    if kind == "number":
        low, high = schema.get("minimum", 0.0), schema.get("maximum", 10.0)
        return round(rng.uniform(low, max(low, high)), 3)
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "null":
        return None
    if kind == "string":
        return _word(words, rng)[: schema.get("maxLength", 10_000)].ljust(schema.get("minLength", 0), "x")
    if kind == "array":
        return _array(schema, rng, words, definitions, depth)
    if kind == "object":
        required = set(schema.get("required", ()))
        return {
            name: random_value(inner, rng, words, definitions, depth + 1)
            for name, inner in schema.get("properties", {}).items()
            if name in required or (depth < 4 and rng.random() < 0.5)
        }
    raise InvalidDataError(f"the schema {dict(schema)} has type {kind!r}; JSON schema types are allowed.")


def _array(
    schema: Mapping[str, Any], rng: random.Random, words: Sequence[str], definitions: Mapping[str, Any], depth: int
) -> JSON:
    if "prefixItems" in schema:
        return [random_value(item, rng, words, definitions, depth + 1) for item in schema["prefixItems"]]
    low = int(schema.get("minItems", 0))
    count = low if depth > 3 else rng.randint(low, int(schema.get("maxItems", low + 2)))
    return [random_value(schema.get("items", {}), rng, words, definitions, depth + 1) for _ in range(count)]


def _integer(schema: Mapping[str, Any], rng: random.Random, words: Sequence[str]) -> int:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
    high = schema.get("maximum", schema.get("exclusiveMaximum", max(low + 10, 11)) - 1)
    shown = [int(word) for word in words if word.isdecimal() and low <= int(word) <= max(high, 10**9)]
    if "maximum" in schema or "exclusiveMaximum" in schema:
        shown = [number for number in shown if number <= high]
    return rng.choice(shown) if shown and rng.random() < 0.5 else rng.randint(low, max(low, high))


def _word(words: Sequence[str], rng: random.Random) -> str:
    return rng.choice(words) if words else rng.choice(("a", "b", "x", "1", "yes"))
