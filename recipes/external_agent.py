"""An agent with a loop of its own: it asks a chat API over plain HTTP, runs its own tools, and knows no environment.

`KeyAgent` is all that agentrl is told of it. The world is keydoor's rooms, used as any program would use them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx
from keydoor.world import DIRECTIONS, Layout, World

import agentrl

TOOLS = [
    {"type": "function", "function": {"name": name, "description": words, "parameters": {"type": "object", **takes}}}
    for name, words, takes in (
        (
            "go",
            "Walk to the next room.",
            {"properties": {"direction": {"enum": list(DIRECTIONS)}}, "required": ["direction"]},
        ),
        ("take", "Take the key if it is here.", {}),
        ("open", "Open the door if it is here and you hold the key.", {}),
    )
]


async def walk(base_url: str, world: World, most: int) -> bool:
    """The agent: ask, call, ask again, until the door is open or `most` answers are used."""
    said: list[dict[str, Any]] = [{"role": "user", "content": world.describe()}]
    async with httpx.AsyncClient(timeout=60.0, verify=False) as client:
        for _ in range(most):
            body = {"model": "policy", "messages": said, "tools": TOOLS}
            answer = (await client.post(f"{base_url}/chat/completions", json=body)).raise_for_status().json()
            message = answer["choices"][0]["message"]
            said.append(message)
            for call in message.get("tool_calls", ()):
                act(world, call["function"]["name"], json.loads(call["function"]["arguments"]))
                said.append({"role": "tool", "tool_call_id": call["id"], "content": world.describe()})
            if not message.get("tool_calls"):
                world.idle()
                said.append({"role": "user", "content": world.describe()})
            if world.opened:
                return True
    return False


def act(world: World, name: str, arguments: dict[str, str]) -> None:
    if name == "go" and arguments.get("direction") in DIRECTIONS:
        world.go(arguments["direction"])  # type: ignore[arg-type]
    elif name == "take":
        world.take()
    elif name == "open":
        world.open()
    else:
        world.idle()


class KeyAgent(agentrl.AgentEnv):
    """The agent above, to be trained: find the key, take it, go to the door, open it."""

    max_steps = 16

    def __init__(self, *, size: int = 3) -> None:
        """size: rooms along one side."""
        self.size = size

    def tasks(self, split: str) -> Iterator[agentrl.Task]:
        """train: endless. test: every held-out layout once."""
        seen = set[Layout]()
        for seed in range(5000) if split == "test" else count():
            layout = Layout.from_seed(seed, self.size, walls=False)
            if layout.held_out == (split == "test") and layout not in seen:
                yield agentrl.Task(f"keys-{split}-{seed}", "key_agent", seed, split=split)
                if split == "test":
                    seen.add(layout)

    async def play(self, task: agentrl.Task, base_url: str) -> float:
        world = World(Layout.from_seed(task.seed, self.size, walls=False))
        return float(await walk(base_url, world, self.max_steps))
