"""How fast the viewer opens a folder with 100,000 episodes, and how much memory its server takes.

    python benchmarks/viewer.py [--quick] [--out benchmarks/results/viewer.json]

The episodes are written by the real ledger: groups of 8, episodes of 8 steps with tool calls, text and tokens, and what
each token was trained with. The server is a process of its own, started by the command line; every time is one HTTP
request as the page makes it, answer read to its end. "index" is everything that the first screen asks for.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
from conditions import conditions
from support.results import Verdict, finish, middle, options

from agentrl.store.ledger import Ledger
from agentrl.store.records import Trained
from agentrl.types import Action, Message, Observation, Status, Step, Task, Timings, ToolCall, Trajectory

GROUP, STEPS, PROMPT, SAMPLED = 8, 8, 60, 24
INDEX = ("api/overview", "api/episodes?limit=100", "api/grid")
ASKED = {
    "last page": "api/episodes?limit=100&offset={last}",
    "sorted by reward": "api/episodes?limit=100&sort=-reward",
    "one outcome": "api/episodes?limit=100&outcome=limit",
    "one batch": "api/episodes?limit=100&batch=7",
    "searched": "api/episodes?limit=100&search=task-77",
    "searched inside": "api/episodes?limit=100&search=corridor+77&inside=1",
    "revision": "api/revision",
}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--episodes", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=50, help="episodes that are opened")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.episodes, chosen.repeats = 800, 5
    before = conditions()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "synthetic"
        began = time.perf_counter()
        names = write(folder, chosen.episodes)
        wrote = time.perf_counter() - began
        bytes_ = sum(path.stat().st_size for path in folder.iterdir())
        print(f"wrote {len(names):,} episodes, {bytes_ / 1e6:.0f} MB, in {wrote:.0f} s")
        measured = measure(folder, names, chosen.repeats)
    verdicts = [
        Verdict("the index opens", sum(measured["index"].values()), "below", 1.0, "s"),
        Verdict("an episode opens (median)", measured["episode"]["median"], "below", 0.1, "s"),
        Verdict("an episode opens (slowest)", measured["episode"]["most"], "below", 0.1, "s"),
        Verdict("memory of the server", measured["memory_mb"], "below", 300, "MB"),
    ]
    finish(chosen, before, {"write_seconds": wrote, "folder_mb": bytes_ / 1e6, **measured}, verdicts)


def measure(folder: Path, names: list[str], repeats: int) -> dict[str, object]:
    rng = random.Random(0)
    server = subprocess.Popen(
        [sys.executable, "-m", "agentrl.cli.main", "view", str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        address = re.search(r"http://\S+/", server.stdout.readline())
        assert address is not None
        with httpx.Client(base_url=address[0], timeout=60) as client:
            client.get("api/revision").raise_for_status()
            index = {path: seconds(client, path) for path in INDEX}
            first = seconds(client, f"api/episode/{names[0]}")
            opened = [seconds(client, f"api/episode/{name}") for name in rng.choices(names, k=repeats)]
            last = len(names) - 100
            asked = {what: seconds(client, path.format(last=last)) for what, path in ASKED.items()}
        memory = peak_mb(server.pid)
    finally:
        server.terminate()
        server.wait(10)
    for what, value in {**index, "first episode": first, **asked}.items():
        print(f"{what:24}{1000 * value:8.0f} ms")
    return {
        "index": index,
        "first_episode": first,
        "episode": middle(opened),
        "asked": asked,
        "memory_mb": memory,
    }


def seconds(client: httpx.Client, path: str) -> float:
    began = time.perf_counter()
    answer = client.get(path).raise_for_status()
    json.loads(answer.content)
    return time.perf_counter() - began


def peak_mb(pid: int) -> float:
    """The most memory that the process ever held, in MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def write(folder: Path, episodes: int) -> list[str]:
    """Groups in batches of 64, as a run would leave them."""
    rng = np.random.default_rng(0)
    names: list[str] = []
    with Ledger(folder) as ledger:
        (folder / "config.toml").write_text(
            'name = "synthetic"\n[environment]\nname = "keydoor"\n[training]\nbatches = 0\n'
        )
        for start in range(0, episodes // GROUP, 64):
            batch = start // 64 + 1
            written: list[Trajectory] = []
            for place in range(start, min(start + 64, episodes // GROUP)):
                group, task = f"g{place:06d}", Task(f"task-{place}", "keydoor")
                members = [f"{group}-{member}" for member in range(GROUP)]
                ledger.issue(place, group, task, members)
                written += [episode(name, group, task, batch, rng) for name in members]
            ledger.finish(*written)
            ledger.batched(batch, [one.id for one in written])
            ledger.keep_trained(batch - 1, [trained(one, batch, rng) for one in written])
            names += [one.id for one in written]
    return names


def episode(name: str, group: str, task: Task, batch: int, rng: np.random.Generator) -> Trajectory:
    kind, won = rng.integers(0, 10), rng.random() < 0.4
    steps = tuple(step(name, index, batch, won and index == STEPS - 1, rng) for index in range(STEPS))
    status = (
        Status.INFRASTRUCTURE_ERROR
        if kind == 9 and batch < 0
        else Status.TRUNCATED
        if kind > 6 and not won
        else Status.OK
    )
    return Trajectory(name, task, group, steps, status, final=Observation((Message("tool", "the end"),)))


def step(name: str, index: int, batch: int, won: bool, rng: np.random.Generator) -> Step:
    before = f"{name}/{index - 1}" if index else None
    room = int(rng.integers(0, 100))
    text = f"You are in corridor {room}. There are doors to the north and the south, and a key on the table. " * 3
    return Step(
        id=f"{name}/{index}",
        index=index,
        previous=before,
        context=before,
        prompt=rng.integers(0, 30_000, PROMPT).astype(np.int32),
        tokens=rng.integers(0, 30_000, SAMPLED).astype(np.int32),
        logprobs=-rng.random(SAMPLED).astype(np.float32),
        versions=np.full(SAMPLED, batch - 1, np.int32),
        action=Action("", (ToolCall("go", {"direction": "north", "room": room}),)),
        observation=Observation((Message("tool" if index else "user", text, name="go"),), state_key=f"room-{room}"),
        reward=float(won),
        scores={"success": float(won)},
        timings=Timings(1e9 + index, 0.01, 0.2, 0.05, 0.0),
    )


def trained(trajectory: Trajectory, batch: int, rng: np.random.Generator) -> Trained:
    size = STEPS * SAMPLED
    advantage = np.full(size, rng.normal(), np.float32)
    return Trained(trajectory.id, batch - 1, advantage, advantage / size, -rng.random(size).astype(np.float32))


if __name__ == "__main__":
    main()
