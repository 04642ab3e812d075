"""The simulated APIs of one episode: instances of their own, called by name, and never found by a global name.

What a function raises is told as the benchmark tells it; nothing that a model wrote is evaluated as code.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from agentrl_bfcl.entries import DOCS, Call, Entry

_HOME = "bfcl_eval.eval_checker.multi_turn_eval.func_source_code"
_STATELESS = ("MathAPI",)


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    failed: bool
    "The function raised: as a rule for the arguments that it was given."


class Simulation:
    """Fresh instances of the classes that an entry names, in the state in which the entry begins."""

    def __init__(self, entry: Entry) -> None:
        self.instances: dict[str, Any] = {}
        self._functions: dict[str, Any] = {}
        for name in entry.classes:
            made = getattr(importlib.import_module(f"{_HOME}.{DOCS[name]}"), name)()
            if name not in _STATELESS:
                made._load_scenario(copy.deepcopy(entry.config.get(name, {})), long_context=entry.long_context)
            self.instances[name] = made
            for function, method in inspect.getmembers(made, predicate=inspect.ismethod):
                if not function.startswith("_"):
                    self._functions[function] = method

    def call(self, name: str, arguments: Mapping[str, Any]) -> Answer:
        """Of a function that the entry's classes have."""
        try:
            result = self._functions[name](**copy.deepcopy(dict(arguments)))
        except Exception as error:
            return Answer(f"Error during execution: {error}", True)
        if isinstance(result, str):
            return Answer(result, False)
        if isinstance(result, dict):
            try:
                return Answer(json.dumps(result), False)
            except (TypeError, ValueError):
                pass
        return Answer(str(result), False)

    def arguments(self, call: Call) -> dict[str, Any]:
        """Those of a call of the ground truth by name."""
        names = list(inspect.signature(self._functions[call.name]).parameters)
        return {**dict(zip(names, call.positional, strict=False)), **call.named}

    def fingerprint(self) -> str:
        """Equal where the instances are equal, in what they show and in what they will draw by chance."""
        state = {name: _plain(made, ()) for name, made in self.instances.items()}
        return sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _plain(value: Any, above: tuple[int, ...]) -> Any:
    """Any state as JSON. A folder knows its parent: what is met again on the way down is left out."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, random.Random):
        return sha256(repr(value.getstate()).encode()).hexdigest()
    if isinstance(value, datetime):
        return None  # when a file was changed, by the clock
    if id(value) in above:
        return None
    below = (*above, id(value))
    if isinstance(value, Mapping):
        return [[str(key), _plain(item, below)] for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [_plain(item, below) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(json.dumps(_plain(item, below), sort_keys=True) for item in value)
    return _plain(vars(value), below) if hasattr(value, "__dict__") else repr(value)
