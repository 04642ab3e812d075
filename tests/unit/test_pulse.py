"""What a run leaves of itself while it lives, and what is read from it: running, stuck, killed, complete, elsewhere."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from builders import make_trajectory
from fakes_rollout import Engine, Renderer, World

from agentrl.config import dump_toml
from agentrl.doctor.runs import STUCK, look_at, report
from agentrl.errors import StoreError
from agentrl.protocols import EngineHealth
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.tokens import TokenPlayer
from agentrl.runs.pulse import FILE, Heart, Pulse, Waiting, alive, read_pulse, started
from agentrl.sections import Config
from agentrl.store.ledger import Ledger
from agentrl.training.metrics import MetricsLog
from agentrl.types import Task

TASK = Task("t", "counter", data={"length": 2})


class Slow(Engine):
    """Answers once it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()

    async def generate(self, request):  # type: ignore[no-untyped-def]
        await self.let.wait()
        return await super().generate(request)

    async def health(self) -> EngineHealth:
        return EngineHealth(True, "", running=3, waiting=1)


async def beat(folder: Path, wanted: Callable[[Pulse], bool] = lambda pulse: True) -> Pulse:
    """The first that is `wanted`."""
    for _ in range(2000):
        found = read_pulse(folder)
        if found is not None and wanted(found):
            return found
        await asyncio.sleep(0.005)
    raise AssertionError("no such beat came")


async def test_a_run_says_what_every_episode_waits_for_and_takes_its_pulse_along(tmp_path: Path) -> None:
    engine = Slow()
    async with RolloutEngine(World(), TokenPlayer(engine, Renderer())) as rollout:
        async with Heart(tmp_path, 9, every=0.01) as heart:
            assert (await beat(tmp_path)).doing == "being built"
            heart.engine = engine
            heart.watch(rollout)
            heart.enter("collecting a batch", 4)
            group = rollout.group("g")
            episodes = [asyncio.create_task(group.episode(TASK, member)) for member in range(3)]
            found = await beat(tmp_path, lambda pulse: pulse.stages == {"the model": 3})
            assert (found.doing, found.batch, found.batches) == ("collecting a batch", 4, 9)
            assert sorted(one.episode for one in found.longest) == ["g-0", "g-1", "g-2"]
            assert found.engine == EngineHealth(True, "", 3, 1) and found.progress is not None
            assert found.pid == os.getpid() and alive(found)
            engine.let.set()
            await asyncio.gather(*episodes)
            assert not (await beat(tmp_path, lambda pulse: not pulse.episodes)).longest
        assert read_pulse(tmp_path) is None


async def test_an_engine_that_does_not_answer_is_part_of_the_pulse(tmp_path: Path) -> None:
    class Gone(Engine):
        async def health(self) -> EngineHealth:
            raise ConnectionError("refused")

    heart = Heart(tmp_path, 1)
    heart.engine = Gone()
    found = await heart.look()
    assert found.engine == EngineHealth(False, "asked for its health: ConnectionError: refused")
    assert found.progress is None and not found.longest


async def test_a_disk_that_takes_no_pulse_does_not_stop_the_run(tmp_path: Path) -> None:
    async with Heart(tmp_path / "nowhere", 1, every=0.001):
        await asyncio.sleep(0.02)


def pulse_of(pid: int, at: float, **more: object) -> Pulse:
    import socket

    waits = (Waiting("g-1", "the environment's step", 40.5), Waiting("g-0", "the model", 2.0))
    found = Pulse(
        pid=pid,
        started=started(pid),
        host=socket.gethostname(),
        time=at,
        doing="collecting a batch",
        doing_for=50.0,
        batch=3,
        batches=9,
        episodes=2,
        stages={"the environment's step": 1, "the model": 1},
        longest=waits,
        progress=2.0,
        engine=EngineHealth(True, "", 1, 0),
    )
    return replace(found, **more)  # type: ignore[arg-type]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    recipe = {"name": "x", "environment": {"name": "keydoor"}, "model": {"name": "tiny"}, "training": {"batches": 9}}
    (tmp_path / "config.toml").write_text(dump_toml(Config.model_validate(recipe)))
    with Ledger(tmp_path) as ledger:
        ledger.issue(0, "g", TASK, ["g-0", "g-1"])
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        for number in range(1, 4):
            log.write(number, {"reward": 0.25, "success": 0.25, "flat_groups": 0.9, "calls": 2.0, "call_validity": 1.0})
    return tmp_path


def write(folder: Path, pulse: Pulse) -> None:
    (folder / FILE).write_bytes(msgspec.json.encode(pulse))


def test_a_living_run_is_told_with_ages(run: Path) -> None:
    now = time.time()
    write(run, pulse_of(os.getpid(), now - 1))
    state = look_at(run, now)
    assert (state.state, state.command, state.batch, state.batches) == ("running", "", 3, 9)
    said = "\n".join(report(state))
    assert f"running: process {os.getpid()}, collecting a batch for 50 s (seen 1 s ago)" in said
    assert "g-1  the environment's step  40.5 s" in said and "engine   ok, 1 running, 0 waiting" in said
    assert "batches  3 of 9 done, no checkpoint yet" in said and "episodes 2 issued" in said
    assert "health   90% of the groups have equal rewards" in said
    write(run, pulse_of(os.getpid(), now - 1, progress=700.0))
    assert "no episode has moved for 700 s" in look_at(run, now).words


def test_a_process_that_gives_no_sign_is_stuck(run: Path) -> None:
    now = time.time()
    write(run, pulse_of(os.getpid(), now - STUCK - 1))
    state = look_at(run, now)
    assert state.state == "stuck" and "event loop is held up" in state.words


def test_a_killed_run_says_the_command_that_goes_on(run: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    pulse = pulse_of(process.pid, time.time() - 100)
    assert alive(pulse)
    process.kill()
    process.wait()
    write(run, pulse)
    state = look_at(run)
    assert state.state == "killed" and "Nothing that was done is lost" in state.words
    assert state.command == f"agentrl train {run / 'config.toml'} --run-folder {run}"
    said = report(state)
    assert said[-1].endswith(state.command) and any(line.startswith("waited   2 episodes") for line in said)


def test_another_process_of_the_same_number_is_not_the_run(run: Path) -> None:
    write(run, pulse_of(os.getpid(), time.time(), started="12"))
    assert look_at(run).state == "killed"


def test_another_machine_and_no_process_at_all(run: Path) -> None:
    write(run, pulse_of(os.getpid(), time.time(), host="far-away"))
    assert look_at(run).state == "elsewhere"
    (run / FILE).unlink()
    state = look_at(run)
    assert state.state == "stopped" and state.command
    with MetricsLog(run / "metrics.jsonl") as log:
        log.write(9, {"reward": 1.0})
    state = look_at(run)
    assert (state.state, state.command) == ("complete", "")
    (run / FILE).write_text("{")
    with pytest.raises(StoreError, match=r"pulse.json cannot be read"):
        look_at(run)


def test_a_run_that_went_on_past_its_recipe_and_a_folder_without_one_are_complete(run: Path) -> None:
    with MetricsLog(run / "metrics.jsonl") as log:
        log.write(12, {"reward": 1.0})
    assert "batches  12 done, 9 asked for last, no checkpoint yet" in report(look_at(run))
    (run / "config.toml").unlink()
    assert look_at(run).state == "stopped"  # two episodes were issued and did not end
    with Ledger(run) as ledger:
        for name in ("g-0", "g-1"):
            ledger.finish(make_trajectory(name, "g", [0.0, 1.0]))
    state = look_at(run)
    assert (state.state, state.batches, state.episodes) == ("complete", None, {"done": 2})


HELD = """
import asyncio, sys, time
from pathlib import Path
from agentrl.runs.pulse import FILE, Heart

def hold_the_loop_up():
    print("held", flush=True)
    time.sleep(60)

async def main():
    async with Heart(Path(sys.argv[1]), 9, every=0.01):
        while not Path(sys.argv[1], FILE).exists():
            await asyncio.sleep(0.01)
        hold_the_loop_up()

asyncio.run(main())
"""


def test_a_run_that_is_held_up_says_in_which_line(run: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HELD, str(run)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            state = look_at(run, time.time() + STUCK + 1)
            assert state.state == "stuck" and process.poll() is None
            assert any("hold_the_loop_up" in line for line in state.stands), state
            assert any(line.startswith("stands ") and "hold_the_loop_up" in line for line in report(state))
        finally:
            process.kill()


def test_a_signal_that_comes_late_does_no_harm(tmp_path: Path) -> None:
    async def live() -> None:
        async with Heart(tmp_path, 1, every=0.01):
            assert (await beat(tmp_path)).answers

    asyncio.run(live())
    os.kill(os.getpid(), signal.SIGUSR1)
    assert not list(tmp_path.iterdir())
