"""A checkout in tau-bench's form with two orders, three tools and four tasks, written by the tests."""

from __future__ import annotations

import json
from pathlib import Path

_TOOL = """
import abc


class Tool(abc.ABC):
    pass
"""
_TYPES = """
from dataclasses import dataclass


@dataclass
class Action:
    name: str
    kwargs: dict


@dataclass
class Task:
    user_id: str
    instruction: str
    actions: list
    outputs: list
"""
_DATA = """
import json
import pathlib


def load_data():
    here = pathlib.Path(__file__).parent
    return {name: json.loads((here / f"{name}.json").read_text()) for name in ("orders", "users")}
"""
_TOOLS = """
import time

from tau_bench.envs.tool import Tool


def described(name, **parameters):
    shown = {"type": "object", "properties": {k: {"type": v} for k, v in parameters.items()}, "required": [*parameters]}
    return {"type": "function", "function": {"name": name, "description": f"{name}.", "parameters": shown}}


class ShowOrder(Tool):
    @staticmethod
    def invoke(data, order_id):
        return str(data["orders"][order_id])

    @staticmethod
    def get_info():
        return described("show_order", order_id="string")


class Cancel(Tool):
    @staticmethod
    def invoke(data, order_id):
        order = data["orders"].get(order_id)
        if order is None:
            return "Error: order not found"
        order["status"] = "cancelled"
        data["users"][order["user"]]["balance"] += order["price"]
        return "cancelled"

    @staticmethod
    def get_info():
        return described("cancel", order_id="string")


class Compute(Tool):
    @staticmethod
    def invoke(data, expression):
        return str(eval(expression))

    @staticmethod
    def get_info():
        return described("compute", expression="string")


class HandOver(Tool):
    @staticmethod
    def invoke(data, summary):
        return "a person takes over"

    @staticmethod
    def get_info():
        return described("transfer_to_human_agents", summary="string")


ALL_TOOLS = [ShowOrder, Cancel, Compute, HandOver]
"""
_TASKS = """
from tau_bench.types import Action, Task

TASKS_{SPLIT} = [
    Task("ann", "You are Ann. Cancel order {first} and say what you get back.", [
        Action("show_order", {{"order_id": "{first}"}}), Action("cancel", {{"order_id": "{first}"}}),
    ], ["1200"]),
    Task("ann", "You are Ann. Cancel order {second}, then speak to a person.", [
        Action("cancel", {{"order_id": "{second}"}}), Action("transfer_to_human_agents", {{"summary": "angry"}}),
    ], []),
]
"""
_USER = """
from litellm import completion


class LLMUserSimulationEnv:
    def __init__(self, model, provider):
        raise AssertionError("only its prompt is wanted")

    def build_system_prompt(self, instruction):
        return f"You play a user. Instruction: {instruction}"
"""


def write(folder: Path) -> Path:
    """The checkout's folder."""
    home = folder / "tau_bench" / "envs" / "retail"
    (home / "data").mkdir(parents=True)
    (home / "tools").mkdir()
    # As there: its packages cannot be imported without an LLM client.
    for place in (folder / "tau_bench", home.parent, home):
        (place / "__init__.py").write_text("import no_such_client\n")
    (home.parent / "tool.py").write_text(_TOOL)
    (home.parent / "user.py").write_text(_USER)
    (folder / "tau_bench" / "types.py").write_text(_TYPES)
    (home / "data" / "__init__.py").write_text(_DATA)
    orders = {name: {"user": "ann", "status": "pending", "price": 1200} for name in ("#1", "#2", "#3", "#4")}
    (home / "data" / "orders.json").write_text(json.dumps(orders))
    (home / "data" / "users.json").write_text(json.dumps({"ann": {"balance": 5}}))
    (home / "tools" / "__init__.py").write_text(_TOOLS)
    (home / "wiki.md").write_text("Serve the user.\n")
    for split, first, second in (("train", "#1", "#2"), ("test", "#3", "#4"), ("dev", "#1", "#4")):
        text = _TASKS.format(SPLIT=split.upper(), first=first, second=second)
        (home / f"tasks_{split}.py").write_text(text)
    return folder
