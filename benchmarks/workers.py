"""What it costs where an environment runs: on the event loop, in a thread of its own, in a process of its own.

    python benchmarks/workers.py [--quick] [--out benchmarks/results/workers.json]

The same keydoor episodes (random moves, no model, no rollout engine) are played in all three in turn, one at a time
and many at once. A step of keydoor takes some ten microseconds, so what is seen is the way to the environment and back.
CPU is that of this process (whose event loop all episodes share) and that of the workers; memory is what one more
instance adds, for a process its proportional set (pages that several processes share are divided among them).
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from conditions import conditions
from keydoor.env import KeyDoor
from support.memory import proportional
from support.results import Verdict, finish, middle, options

from agentrl import Action, Task, call
from agentrl.environment import RunsIn, adapt
from agentrl.protocols import Environment
from agentrl.remote.pool import WORKERS

PLACES: tuple[RunsIn, ...] = get_args(RunsIn)
MOVES: tuple[Action, ...] = (
    *(call("go", direction=way) for way in ("north", "east", "south", "west")),
    call("take"),
    call("open"),
)
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Round:
    """Some episodes in one place."""

    steps: int
    wall: float
    driver: float
    "CPU seconds of this process."
    workers: float
    "CPU seconds of the worker processes."


def world(place: RunsIn) -> Environment:
    made = KeyDoor(size=4, horizon=16)
    made.runs_in = place
    return adapt(made)


async def episode(place: RunsIn, task: Task, seed: int) -> int:
    """Steps of one episode in a fresh instance."""
    rng, steps, environment = random.Random(seed), 0, world(place)
    await environment.reset(task)
    over = False
    while not over:
        result = await environment.step(rng.choice(MOVES))
        over, steps = result.terminated or result.truncated, steps + 1
    await environment.close()
    return steps


async def one_round(place: RunsIn, tasks: Sequence[Task], at_once: int) -> Round:
    """All tasks, `at_once` of them at any time, with workers that wait already."""
    waiting = [world(place) for _ in range(at_once)]
    await asyncio.gather(*(environment.reset(tasks[0]) for environment in waiting))
    await asyncio.gather(*(environment.close() for environment in waiting))
    gc.collect()
    pids = WORKERS.pids()
    before = _cpu_of(pids)
    driver, wall = time.process_time(), time.perf_counter()
    numbered = iter(enumerate(tasks))

    async def player() -> int:
        return sum([await episode(place, task, seed) for seed, task in numbered])

    steps = sum(await asyncio.gather(*(player() for _ in range(at_once))))
    driver, wall = time.process_time() - driver, time.perf_counter() - wall
    return Round(steps, wall, driver, _cpu_of(pids) - before)


async def memory(place: RunsIn, count: int, task: Task) -> float:
    """Bytes that one more instance in mid-episode takes."""
    gc.collect()
    WORKERS.close()
    before = proportional({os.getpid()})
    environments = [world(place) for _ in range(count)]
    await asyncio.gather(*(environment.reset(task) for environment in environments))
    await asyncio.gather(*(environment.step(MOVES[0]) for environment in environments))
    here = proportional({os.getpid()}) - before
    await asyncio.gather(*(environment.close() for environment in environments))
    return (here + proportional(WORKERS.pids())) / count


async def start(tasks: Sequence[Task]) -> tuple[float, float]:
    """Seconds from nothing to the first observation in a process, and in one that waited."""
    WORKERS.close()
    taken = []
    for _ in range(2):
        began = time.perf_counter()
        environment = world("process")
        await environment.reset(tasks[0])
        taken.append(time.perf_counter() - began)
        await environment.close()
    return taken[0], taken[1]


async def measure(episodes: int, at_once: Sequence[int], repeats: int, instances: int) -> dict[str, Any]:
    tasks = list(islice(KeyDoor(size=4, horizon=16).tasks("train"), episodes))
    rounds: dict[tuple[RunsIn, int], list[Round]] = {(place, many): [] for many in at_once for place in PLACES}
    for _ in range(repeats):
        for (place, many), done in rounds.items():
            done.append(await one_round(place, tasks, many))
    starts = [await start(tasks) for _ in range(repeats)]
    used = {place: round(await memory(place, instances, tasks[0])) for place in PLACES}
    WORKERS.close()
    return {
        "rounds": {
            f"{place}, {many} at once": {
                "steps": done[0].steps,
                "steps_per_second": middle([r.steps / r.wall for r in done]),
                "wall_us_per_step": middle([1e6 * r.wall / r.steps for r in done]),
                "driver_cpu_us_per_step": middle([1e6 * r.driver / r.steps for r in done]),
                "worker_cpu_us_per_step": middle([1e6 * r.workers / r.steps for r in done]),
            }
            for (place, many), done in rounds.items()
        },
        "cold_start_seconds": middle([cold for cold, _ in starts]),
        "warm_start_seconds": middle([warm for _, warm in starts]),
        "bytes_per_instance": used,
    }


def _cpu_of(pids: set[int]) -> float:
    """CPU seconds so far, in ticks of the system (10 ms as a rule)."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(field[11]) + int(field[12]) for field in fields) / _TICK


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--episodes", type=int, help="a round (default 200, with --quick 8)")
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    before = conditions()
    episodes = chosen.episodes or (8 if chosen.quick else 200)
    many = 4 if chosen.quick else 16
    measured = asyncio.run(measure(episodes, (1, many), 1 if chosen.quick else chosen.repeats, many))
    print(f"{'where':>22}{'steps/s':>10}{'us a step':>11}{'driver CPU us':>15}{'worker CPU us':>15}")
    for name, told in measured["rounds"].items():
        middles = [told[key]["median"] for key in told if key != "steps"]
        print(f"{name:>22}{middles[0]:10.0f}{middles[1]:11.0f}{middles[2]:15.0f}{middles[3]:15.0f}")
    cold, warm = measured["cold_start_seconds"]["median"], measured["warm_start_seconds"]["median"]
    print(f"first observation in a process: {cold:.3f} s from nothing, {1e3 * warm:.2f} ms in one that waited")
    used = {place: f"{size / 2**20:.2f}" for place, size in measured["bytes_per_instance"].items()}
    print(f"MiB an instance: {', '.join(f'{place} {size}' for place, size in used.items())}")
    near, far = (
        measured["rounds"][f"{place}, {many} at once"]["driver_cpu_us_per_step"]["median"] for place in PLACES[::2]
    )
    verdicts = [
        Verdict("CPU of the driver that a process adds to a step", far - near, "below", 500, "us"),
        Verdict(
            "memory of an instance in a process", measured["bytes_per_instance"]["process"] / 2**20, "below", 50, "MiB"
        ),
    ]
    finish(chosen, before, measured, verdicts)


if __name__ == "__main__":
    main()
