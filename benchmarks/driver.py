"""What the driver costs: CPU a step and memory an episode, with 1,000 episodes in flight.

    python benchmarks/driver.py [--quick] [--out benchmarks/results/driver.json] [--profile]

An engine of 50 ms latency replays random keydoor moves (no model), so all CPU that the process uses is rollout engine,
collector, ledger (with its fsyncs), renderer and environment. Batches of 1,000 and of 100 episodes take turns: a step
costs the same in both unless something grows with the episodes in flight.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import pstats
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conditions import conditions
from keydoor.env import KeyDoor
from support.results import Verdict, finish, middle, options

from agentrl import Action, call
from agentrl.engines.scripted import ScriptedEngine
from agentrl.environment import adapt
from agentrl.protocols import Environment, Renderer
from agentrl.rendering import make_renderer
from agentrl.rollout.accounting import BatchShape
from agentrl.rollout.collector import Collector
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.rollout.strategies.independent import Independent
from agentrl.rollout.tokens import TokenPlayer
from agentrl.runs.warm_start import vocabulary
from agentrl.store.ledger import Ledger
from agentrl.tasks.samplers import SequentialSampler
from agentrl.tiny import word_tokenizer
from agentrl.types import TokenIds

LATENCY = 0.05
GROUP = 8
MOVES: tuple[Action, ...] = (
    *(call("go", direction=way) for way in ("north", "east", "south", "west")),
    call("take"),
    call("open"),
)


@dataclass(frozen=True)
class Round:
    """One batch."""

    episodes: int
    steps: int
    cpu: float
    "Seconds of the whole process, threads included."
    wall: float
    memory: int
    "Bytes by which the peak of the resident set lay above its start."
    most_at_engine: int


def environment() -> Environment:
    return adapt(KeyDoor(size=4, horizon=16))


async def one_batch(renderer: Renderer, episodes: int, seed: int, profile: cProfile.Profile | None = None) -> Round:
    """Collect one batch whose episodes all start together."""
    tools = environment().tools()
    replies = [renderer.action_tokens(move, tools) for move in MOVES]
    rng = random.Random(seed)

    def reply(prompt: TokenIds) -> TokenIds:
        return rng.choice(replies)

    engine = ScriptedEngine(reply, latency=LATENCY)
    limits = EpisodeLimits(max_tokens=8, max_context=1024)
    supervision = Supervision(environment_slots=episodes, engine_slots=episodes)
    sampler = SequentialSampler(lambda: environment().tasks("train"), seed=seed)
    shape = BatchShape(groups=episodes // GROUP, group_size=GROUP)
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder)) as ledger, _collected_garbage():
        _reset_peak()
        memory, cpu, wall = _resident("VmRSS"), time.process_time(), time.perf_counter()
        async with (
            RolloutEngine(
                environment, TokenPlayer(engine, renderer), limits=limits, supervision=supervision
            ) as rollout,
            Collector(rollout, Independent(), sampler, ledger, shape) as collector,
        ):
            if profile is not None:
                profile.enable()
            groups = await collector.next_batch(0)
            if profile is not None:
                profile.disable()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        memory = _resident("VmHWM") - memory
    trajectories = [trajectory for group in groups for trajectory in group.trajectories]
    steps = sum(len(trajectory.steps) for trajectory in trajectories)
    return Round(len(trajectories), steps, cpu, wall, memory, engine.most_running)


async def measure(many: int, few: int, repeats: int) -> dict[int, list[Round]]:
    renderer = await _renderer()
    rounds: dict[int, list[Round]] = {many: [], few: []}
    await one_batch(renderer, few, seed=0)  # warms up what is imported and compiled late
    for repeat in range(repeats):
        for episodes in (many, few):
            rounds[episodes].append(await one_batch(renderer, episodes, seed=repeat))
    return rounds


def show_profile(episodes: int) -> None:
    async def run() -> None:
        await one_batch(await _renderer(), episodes, 0, profile)

    profile = cProfile.Profile(time.thread_time)
    asyncio.run(run())
    pstats.Stats(profile).sort_stats("tottime").print_stats(30)


async def _renderer() -> Renderer:
    texts = await vocabulary(environment, seed=0)
    return make_renderer(word_tokenizer(texts, 1024), "word")


@contextmanager
def _collected_garbage() -> Iterator[None]:
    gc.collect()
    yield
    gc.collect()


def _reset_peak() -> None:
    """Forget the earlier peak of the resident set (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def _resident(name: str) -> int:
    """Bytes of `VmRSS` (now) or `VmHWM` (peak)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--episodes", type=int, help="in flight; a multiple of 8 (default 1000, with --quick 80)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="print where the event loop's CPU goes, and end")
    chosen = parser.parse_args()
    before = conditions()
    many = chosen.episodes or (80 if chosen.quick else 1000)
    if chosen.profile:
        return show_profile(many)
    few = max(many // 80 * 8, 8)
    rounds = asyncio.run(measure(many, few, 2 if chosen.quick else chosen.repeats))
    measured = {}
    print(f"{'in flight':>10}{'steps':>8}{'us a step':>11}{'KiB an episode':>16}{'at engine':>11}{'steps/s':>9}")
    for episodes, done in rounds.items():
        cost = middle([1e6 * r.cpu / r.steps for r in done])
        # The first batch pays for what the allocator keeps; later ones find it there.
        memory = max(r.memory for r in done) / episodes
        rate = middle([r.steps / r.wall for r in done])
        measured[str(episodes)] = {
            "steps": [r.steps for r in done],
            "cpu_us_per_step": cost,
            "bytes_per_episode": round(memory),
            "most_requests_at_the_engine": max(r.most_at_engine for r in done),
            "steps_per_second": rate,
        }
        print(
            f"{episodes:10d}{done[0].steps:8d}{cost['median']:11.0f}{memory / 1024:16.1f}"
            f"{max(r.most_at_engine for r in done):11d}{rate['median']:9.0f}"
        )
    cost = measured[str(many)]["cpu_us_per_step"]["median"]
    verdicts = [
        Verdict(f"CPU a step with {many} episodes in flight", cost, "below", 500, "us"),
        Verdict("memory an episode", measured[str(many)]["bytes_per_episode"] / 1e6, "below", 1, "MB"),
    ]
    finish(chosen, before, measured, verdicts)


if __name__ == "__main__":
    main()
