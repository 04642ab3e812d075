"""The benchmark's own files: entries with their ground truth, and the functions of the simulated APIs as tools.

Nothing of the package is run here and no folder of it is written.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agentrl import ToolSpec

Category = Literal["all", "base", "miss_func", "miss_param", "long_context"]
CATEGORIES = ("base", "miss_func", "miss_param", "long_context")
Split = Literal["train", "test", "all"]
HELD_OUT = 4
"One in so many numbers is held out, in every category alike: entries of one number tell one story."
DOCS: Mapping[str, str] = {
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MessageAPI": "message_api",
    "TwitterAPI": "posting_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "VehicleControlAPI": "vehicle_control",
}
"File of each simulated API, of its functions' descriptions and of its class."
_TYPES = {"dict": "object", "float": "number", "tuple": "array"}
"Names of types that are Python's; JSON schema has others."


@dataclass(frozen=True, slots=True)
class Entry:
    """One task of the benchmark."""

    id: str
    turns: tuple[str, ...]
    "What the user says at the beginning of each turn; empty where functions are added and nothing is said."
    truth: tuple[tuple[str, ...], ...]
    "Calls of each turn, in Python's form; none where something is missing that the model needs."
    classes: tuple[str, ...]
    config: Mapping[str, Any]
    added: Mapping[int, tuple[str, ...]]
    "Functions that are held back until a turn, by its number."

    @property
    def long_context(self) -> bool:
        return "long_context" in self.id


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the ground truth."""

    name: str
    positional: tuple[Any, ...]
    named: Mapping[str, Any]


def entry_ids(category: Category, split: Split) -> Iterator[str]:
    """In the benchmark's order. "all" is what leaderboards report on; "test" is held out from "train"."""
    for chosen in CATEGORIES if category == "all" else (category,):
        for number, name in enumerate(_entries(chosen)):
            if split == "all" or (number % HELD_OUT == HELD_OUT - 1) == (split == "test"):
                yield name


def entry(name: str) -> Entry:
    """Raises `ValueError` for a name that the installed benchmark does not have."""
    category = name.removeprefix("multi_turn_").rpartition("_")[0]
    found = _entries(category).get(name) if category in CATEGORIES else None
    if found is None:
        raise ValueError(f"the installed bfcl-eval has no task {name!r}; its ids are like 'multi_turn_base_0'.")
    return found


def calls_of(turn: Sequence[str]) -> list[Call]:
    """Raises `ValueError` where a call of the ground truth is not a plain one."""
    found = []
    for text in turn:
        made = ast.parse(text.strip(), mode="eval").body
        if not isinstance(made, ast.Call) or not isinstance(made.func, ast.Name):
            raise ValueError(f"the ground truth holds {text!r}, which is no plain call.")
        named = {str(word.arg): ast.literal_eval(word.value) for word in made.keywords}
        found.append(Call(made.func.id, tuple(map(ast.literal_eval, made.args)), named))
    return found


@functools.cache
def tools_of(api: str) -> tuple[ToolSpec, ...]:
    """The functions of a simulated API as a model sees them."""
    docs = _lines(_folder() / "multi_turn_func_doc" / f"{DOCS[api]}.json")
    return tuple(ToolSpec(doc["name"], doc["description"], schema(doc["parameters"])) for doc in docs)


def schema(told: Mapping[str, Any]) -> dict[str, Any]:
    """The benchmark's description of a value as JSON schema."""
    made = dict(told)
    kind = told.get("type")
    if kind == "any":
        del made["type"]
    elif kind is not None:
        made["type"] = _TYPES.get(kind, kind)
    if "properties" in told:
        made["properties"] = {name: schema(value) for name, value in told["properties"].items()}
    if "items" in told:
        made["items"] = schema(told["items"])
    return made


@functools.cache
def _entries(category: str) -> Mapping[str, Entry]:
    name = f"BFCL_v4_multi_turn_{category}.json"
    truths = {row["id"]: row["ground_truth"] for row in _lines(_folder() / "possible_answer" / name)}
    return {
        row["id"]: Entry(
            id=row["id"],
            turns=tuple("\n".join(message["content"] for message in turn) for turn in row["question"]),
            truth=tuple(tuple(turn) for turn in truths[row["id"]]),
            classes=tuple(row["involved_classes"]),
            config=row["initial_config"],
            added={int(turn): tuple(names) for turn, names in row.get("missed_function", {}).items()},
        )
        for row in _lines(_folder() / name)
    }


def _folder() -> Path:
    spec = importlib.util.find_spec("bfcl_eval")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "bfcl_eval is not installed in this interpreter. Run: agentrl env install bfcl_multi_turn", name="bfcl_eval"
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
