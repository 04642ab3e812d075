"""Kills and resumes: every life of a run continues the one before, in one process and with real `kill -9`."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from fakes_rollout import Engine, Renderer, World, jitter, numbers
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.protocols import TaskSampler
from agentrl.rollout.accounting import BatchShape
from agentrl.rollout.collector import Collector
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.forking import orphaned
from agentrl.rollout.limits import Supervision
from agentrl.rollout.strategies.branching import RandomBranching
from agentrl.rollout.strategies.independent import Independent
from agentrl.rollout.tokens import TokenPlayer
from agentrl.store.ledger import Ledger
from agentrl.tasks.curricula import OptimisticSampler, SoftmaxSampler, StagedSampler
from agentrl.tasks.priorities import MediumSampler, PrioritySampler
from agentrl.tasks.samplers import SequentialSampler
from agentrl.types import Group, Task

QUICK = Supervision(backoff=0.001, failure_window=10_000, attempts=1)


class Killed(Exception):
    """Stands for kill -9: nothing after it is written."""


class Mortal(Ledger):
    """Dies at the n-th write."""

    writes = 0
    last = 10**9

    def _die(self) -> None:
        self.writes += 1
        if self.writes > self.last:
            raise Killed

    def issue(self, *args: object) -> None:
        self._die()
        super().issue(*args)  # type: ignore[arg-type]

    def finish(self, *args: object) -> None:
        self._die()
        super().finish(*args)  # type: ignore[arg-type]

    def drop(self, *args: object) -> None:
        self._die()
        super().drop(*args)  # type: ignore[arg-type]

    def batched(self, *args: object) -> None:
        self._die()
        super().batched(*args)  # type: ignore[arg-type]

    def set_head(self, *args: object, **rest: object) -> None:
        self._die()
        super().set_head(*args, **rest)  # type: ignore[arg-type]


def tasks_in_order() -> list[Task]:
    return [Task(f"t{i}", "counter", seed=i, data={"length": 1 + i % 3}) for i in range(11)]


SAMPLERS: dict[str, Callable[[], TaskSampler]] = {
    "sequential": lambda: SequentialSampler(tasks_in_order, seed=3),
    "sec": lambda: SoftmaxSampler(tasks_in_order, 3, by="length"),
    "dump": lambda: OptimisticSampler(tasks_in_order, 3, by="length"),
    "staged": lambda: StagedSampler(tasks_in_order, 3, by="length", share=0.3, window=4),
    "pcl": lambda: MediumSampler(tasks_in_order, 3),
    "priority": lambda: PrioritySampler(tasks_in_order, 3),
    "branching": lambda: SequentialSampler(tasks_in_order, seed=3),
}
BRANCHING = RandomBranching(initial=2, chance=0.7)


async def life(
    folder: Path, last: int, bound: int, batches: int, log: Path | None = None, kind: str = "sequential"
) -> list[tuple[int, list[Group]]]:
    """One process: resume, train, checkpoint every second batch. Returns the batches that it trained on."""
    trained: list[tuple[int, list[Group]]] = []
    dice = random.Random(last)
    with Mortal(folder) as ledger:
        head = ledger.head()
        engine = Engine(latency=jitter(last))
        engine.version = head.update if head else 0
        sampler = SAMPLERS[kind]()
        if head:
            sampler.restore(head.sampler)
        state = ledger.resume(engine.version, bound)
        ledger.last = last
        rollout = RolloutEngine(World(), TokenPlayer(engine, Renderer()), supervision=QUICK, seed=5)
        branches = kind == "branching"
        shape = BatchShape(groups=2, group_size=5 if branches else 2, max_staleness=bound)
        strategy = BRANCHING if branches else Independent()
        try:
            async with rollout, Collector(rollout, strategy, sampler, ledger, shape, keep=uneven) as collector:
                collector.resume(state)
                for update in range(engine.version, batches):
                    trained.append((update + 1, await collector.next_batch(engine.version)))
                    if log is not None:
                        names = [t.id for group in trained[-1][1] for t in group.trajectories]
                        with log.open("a") as file:
                            print(update + 1, *names, file=file)
                        print("trained", flush=True)
                    await asyncio.sleep(dice.random() * 0.005)
                    engine.version = update + 1
                    if update % 2 or update + 1 == batches:
                        ordinal, state = await collector.position()
                        ledger.set_head(update + 1, f"c{update + 1}", state, ordinal)
        except Killed:
            pass
    return trained


def uneven(group: Group) -> bool:
    """Drops one group of seven or so, and always the same."""
    return int(group.task.id[1:]) != 4


async def lives(
    folder: Path, kills: Sequence[int], bound: int, batches: int, kind: str = "sequential"
) -> dict[int, list[Group]]:
    """What the surviving line of history trained on: a batch after the head is trained again."""
    trained: dict[int, list[Group]] = {}
    for last in [*kills, 10**9]:
        trained |= dict(await life(folder, last, bound, batches, kind=kind))
    return trained


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(kills=st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_killed_and_resumed_runs_equal_an_undisturbed_one_number_for_number(kills: list[int]) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        disturbed = asyncio.run(lives(Path(one) / "run", kills, bound=0, batches=6))
        calm = asyncio.run(lives(Path(two) / "run", [], bound=0, batches=6))
    assert numbers([disturbed[update] for update in range(1, 7)]) == numbers([calm[update] for update in range(1, 7)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in SAMPLERS if kind != "sequential"])
@settings(max_examples=4, deadline=None)
@given(kills=st.lists(st.integers(4, 30), min_size=1, max_size=3))
def test_a_curriculum_goes_on_after_kills_as_if_nothing_had_happened(kind: str, kills: list[int]) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        disturbed = asyncio.run(lives(Path(one) / "run", kills, 0, 6, kind))
        calm = asyncio.run(lives(Path(two) / "run", [], 0, 6, kind))
    assert numbers([disturbed[update] for update in range(1, 7)]) == numbers([calm[update] for update in range(1, 7)])


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(kills=st.lists(st.integers(0, 50), min_size=1, max_size=4), bound=st.integers(0, 2))
def test_killed_groups_that_branch_are_completed_and_share_what_they_say_they_share(
    kills: list[int], bound: int
) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        disturbed = asyncio.run(lives(Path(one) / "run", kills, bound, 6, "branching"))
        calm = asyncio.run(lives(Path(two) / "run", [], bound, 6, "branching"))
    groups = [group for update in range(1, 7) for group in disturbed[update]]
    assert any(t.forked_from for group in groups for t in group.trajectories)
    for group in groups:
        assert len(group.trajectories) == 5 and not orphaned(dict(enumerate(group.trajectories)))
    ids = [t.id for group in groups for t in group.trajectories]
    assert len(ids) == len(set(ids)) == 60
    if bound == 0:
        assert numbers([disturbed[n] for n in range(1, 7)]) == numbers([calm[n] for n in range(1, 7)])


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(kills=st.lists(st.integers(0, 40), min_size=1, max_size=4), bound=st.integers(1, 2))
def test_killed_asynchronous_runs_lose_no_task_and_train_nothing_twice(kills: list[int], bound: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trained = asyncio.run(lives(Path(folder) / "run", kills, bound, batches=6))
        groups = [group for update in range(1, 7) for group in trained[update]]
        with Ledger(Path(folder) / "run") as ledger:
            counts = ledger.counts()
            left = {group.ordinal for group in ledger.resume(6, bound).groups}
    ids = [trajectory.id for group in groups for trajectory in group.trajectories]
    assert len(ids) == len(set(ids)) == counts["trained"] == 24
    used = {int(group.id[1:7]) for group in groups}
    order = [task.id for task in SequentialSampler(tasks_in_order, seed=3).next(40)]
    assert all(group.task.id == order[int(group.id[1:7])] for group in groups)
    filtered = {ordinal for ordinal, task in enumerate(order) if task == "t4"}
    assert set(range(max(used) + 1)) <= used | left | filtered


_RUN = """
import asyncio, json, sys
from pathlib import Path
from test_kill_ledger import life
folder, bound, batches = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
asyncio.run(life(folder, 10**9, bound, batches, folder / "trained.log"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("bound", [0, 2])
def test_kill_9_at_random_points_loses_no_task_and_trains_nothing_twice(tmp_path: Path, bound: int) -> None:
    """Real processes: each is killed at a random moment of its work, and the last one is left to finish."""
    dice, folder, batches = random.Random(bound), tmp_path / "run", 40
    here = Path(__file__).parent
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent / "unit")])}
    command = [sys.executable, "-c", _RUN, str(folder), str(bound), str(batches)]
    kills = 0
    for _ in range(8):
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(dice.randint(1, 4)):
                process.stdout.readline()
            time.sleep(0.01 * dice.random())
            process.send_signal(signal.SIGKILL)
        kills += process.returncode == -signal.SIGKILL
    assert kills >= 3
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=True)
    with Ledger(folder) as ledger:
        assert ledger.counts()["trained"] == batches * 4
        left = {group.ordinal for group in ledger.resume(batches, bound).groups}
    # Only what the surviving history trained on: a later life that repeats an update replaces it.
    trained: dict[int, list[str]] = {}
    for line in (folder / "trained.log").read_text().splitlines():
        update, *names = line.split()
        trained[int(update)] = names
    used = [name for update in range(1, batches + 1) for name in trained[update]]
    assert len(used) == len(set(used)) == batches * 4
    ordinals = {int(name[1:7]) for name in used}
    order = [task.id for task in SequentialSampler(tasks_in_order, seed=3).next(max(ordinals) + 1)]
    filtered = {ordinal for ordinal, task in enumerate(order) if task == "t4"}
    assert set(range(max(ordinals) + 1)) <= ordinals | left | filtered
