"""A checkout of tau-bench, read from the path that the user gives: tools, tasks, database, policy, user's prompt.

Its modules are imported under their own names and then forgotten by the interpreter, so that two checkouts do not meet
and its packages' `__init__` files, which need an LLM client, are never run.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from agentrl import ToolSpec
from agentrl.errors import ConfigError

VARIABLE = "TAU_BENCH_DATA"
SPLITS = ("train", "test", "dev")
_HOME = "tau_bench.envs.retail"
_PACKAGES = ("tau_bench", "tau_bench.envs", _HOME)
_LOCK = threading.Lock()

Database = dict[str, dict[str, Any]]
"Tables of records by key; records are JSON."


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task as the benchmark has it."""

    instruction: str
    "What the user is told to want."
    actions: tuple[tuple[str, Mapping[str, Any]], ...]
    outputs: tuple[str, ...]
    "What the agent has to tell the user."


@dataclass(frozen=True, slots=True, eq=False)
class Checkout:
    folder: Path
    policy: str
    specs: tuple[ToolSpec, ...]
    load: Callable[[], Database]
    "A fresh database."
    _tools: Mapping[str, Any]

    def invoke(self, data: Database, name: str, arguments: Mapping[str, Any]) -> str:
        """A tool's answer; it may change `data`. Raises what the tool raises."""
        return str(self._tools[name].invoke(data=data, **arguments))

    def has(self, name: str) -> bool:
        return name in self._tools

    def tasks(self, split: str) -> tuple[TaskRecord, ...]:
        """Raises `ValueError` where the checkout has no such split."""
        if split not in SPLITS:
            raise ValueError(f"there is no split {split!r}; tau-bench retail has {', '.join(SPLITS)}.")
        return _tasks(self.folder, split)

    def part_of_user(self, instruction: str) -> str:
        """The benchmark's own prompt for the model that plays the user."""
        with _importing(self.folder):
            # Its client for LLMs: none is called, since only the prompt is wanted.
            sys.modules["litellm"] = ModuleType("litellm")
            sys.modules["litellm"].completion = None  # type: ignore[attr-defined]
            user = _attribute(self.folder, "tau_bench.envs.user", "LLMUserSimulationEnv")
        return str(user.build_system_prompt(object.__new__(user), instruction))


def open_checkout(data: str) -> Checkout:
    """The checkout at `data`, else at `$TAU_BENCH_DATA`. Raises `ConfigError` with what is missing and what to do."""
    named = data or os.environ.get(VARIABLE, "")
    advice = f"Clone sierra-research/tau-bench, and name its folder as data=... or in the variable {VARIABLE}."
    if not named:
        raise ConfigError(f"tau_retail has no data: tau-bench's code and database are not shipped. {advice}")
    folder = Path(named).expanduser().resolve()
    if not (folder / "tau_bench" / "envs" / "retail" / "wiki.md").is_file():
        raise ConfigError(f"tau_retail finds no tau_bench/envs/retail/wiki.md in {folder}. {advice}")
    return _read(folder)


@functools.cache
def _read(folder: Path) -> Checkout:
    with _importing(folder):
        listed = _attribute(folder, f"{_HOME}.tools", "ALL_TOOLS")
        load = _attribute(folder, f"{_HOME}.data", "load_data")
    told = [(tool, tool.get_info()["function"]) for tool in listed]
    return Checkout(
        folder=folder,
        policy=(folder / "tau_bench" / "envs" / "retail" / "wiki.md").read_text(encoding="utf-8"),
        specs=tuple(ToolSpec(info["name"], info["description"], info["parameters"]) for _, info in told),
        load=load,
        _tools={info["name"]: tool for tool, info in told},
    )


@functools.cache
def _tasks(folder: Path, split: str) -> tuple[TaskRecord, ...]:
    with _importing(folder):
        listed = _attribute(folder, f"{_HOME}.tasks_{split}", f"TASKS_{split.upper()}")
    return tuple(
        TaskRecord(
            task.instruction,
            tuple((action.name, dict(action.kwargs)) for action in task.actions),
            tuple(task.outputs),
        )
        for task in listed
    )


def _attribute(folder: Path, module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:
        raise ConfigError(
            f"tau_retail cannot read {name} of {module} in {folder}: {type(error).__name__}: {error}. "
            "Is the checkout whole?"
        ) from error


@contextmanager
def _importing(folder: Path) -> Iterator[None]:
    """Imports of `tau_bench` find this checkout, without the `__init__` of its packages; nothing of it stays known."""

    def ours(name: str) -> bool:
        return name.partition(".")[0] in ("tau_bench", "litellm")

    with _LOCK:
        before = {name: module for name, module in sys.modules.items() if ours(name)}
        for name in before:
            del sys.modules[name]
        for name in _PACKAGES:
            sys.modules[name] = package = ModuleType(name)
            package.__path__ = [str(folder.joinpath(*name.split(".")))]
        importlib.invalidate_caches()
        try:
            yield
        finally:
            for name in [name for name in sys.modules if ours(name)]:
                del sys.modules[name]
            sys.modules.update(before)
