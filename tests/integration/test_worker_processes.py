"""Environments in processes: what hangs, crashes, prints or is killed stays theirs, and nothing is left behind."""

import asyncio
import ctypes
import functools
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentrl import protocols
from agentrl.agents import oracle_agent, random_agent
from agentrl.blame import AuthorFault
from agentrl.environment import Env, adapt, call
from agentrl.errors import EnvironmentFault, InfrastructureFault, PluginError
from agentrl.remote.address import Address
from agentrl.remote.environment import open_remote
from agentrl.remote.pool import WORKERS
from agentrl.testing import check_environment
from agentrl.testing.episodes import difference, play
from agentrl.tools import ToolError, tool
from agentrl.types import Task

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def no_worker_outlives_the_tests():
    others = alive()
    yield
    WORKERS.close()
    assert alive() <= others


class Counter(Env):
    """Count to the target."""

    runs_in = "process"
    max_steps = 8
    system = "Count."
    text_limit = 20_000_000

    def __init__(self, *, target: int = 3, path: Path | None = None):
        assert path is None or isinstance(path, Path)
        self.target = target

    def tasks(self, split):
        start = 0 if split == "train" else 500
        for seed in range(start, start + 400):
            yield Task(f"{split}-{seed}", "counter", seed, {"big": 2**70, "none": None, "text": "é\n"})

    def reset(self, task):
        self.count = -(task.seed % 2)
        print("no protocol\x00", end="")
        return f"From {self.count} to {self.target}."

    @tool
    def add(self, n: int = 1) -> str:
        """Add.

        n: how much
        """
        if n not in (1, -1):
            raise ToolError(f"{n} is too far")
        self.count += n
        return f"now {self.count}"

    @tool
    def much(self, size: int) -> str:
        """Much."""
        return "é" * max(0, min(size, 10_000_000))

    def done(self):
        return self.count >= self.target

    def reward(self):
        return float(self.count == self.target)

    def state_key(self):
        return str(self.count)

    def snapshot(self):
        return {"count": self.count}

    def restore(self, snapshot):
        self.count = snapshot["count"]

    def oracle(self, task):
        while self.count < self.target:
            yield call("add")

    def demonstrate(self, task, rng):
        yield call("add", n=rng.choice((1, -1)))
        yield from self.oracle(task)

    def cheats(self, task):
        return {f"from {self.count}": [call("add", n=-1)] * 8}


class AsyncCounter(Counter):
    async def reset(self, task):
        await asyncio.sleep(0)
        return Counter.reset(self, task)


class Beating(AsyncCounter):
    async def reset(self, task):
        self.beats = 0
        self.beating = asyncio.create_task(self.beat())
        return Counter.reset(self, task)

    async def beat(self):
        while True:
            await asyncio.sleep(0.001)
            self.beats += 1

    @tool
    async def heard(self) -> int:
        """How often it was heard."""
        return self.beats

    async def close(self):
        if hasattr(self, "beating"):
            self.beating.cancel()


class Broken(Counter):
    @tool
    def pid(self) -> int:
        """Who."""
        return os.getpid()

    @tool
    def hang(self) -> str:
        """Hang."""
        time.sleep(100)
        return ""

    @tool
    def compute(self) -> str:
        """Hold the interpreter's lock."""
        return str(re.match(r"(a+)+$", "a" * 40 + "b"))

    @tool
    def crash(self) -> str:
        """Crash."""
        return str(ctypes.string_at(0))

    @tool
    def leave(self) -> str:
        """Leave."""
        print("last words", flush=True)
        os._exit(3)

    @tool
    def be_killed(self) -> str:
        """As by a system out of memory."""
        os.kill(os.getpid(), signal.SIGKILL)
        return ""

    @tool
    def babble(self, text: str) -> str:
        """On the line to the driver, beside its protocol."""
        os.write(int(sys.argv[1]), bytes.fromhex(text))
        return ""

    @tool
    def start(self) -> int:
        """Leave a process behind."""
        return subprocess.Popen(["sleep", "1000"]).pid

    @tool
    def fail(self) -> str:
        """Fail."""
        return {}["nothing"]


class Loud(Counter):
    text_limit = 1000

    @tool
    def shout(self) -> str:
        """Shout."""
        return "x" * 100_000_000


class Hasty(Broken):
    step_deadline = 1.0


class HastyAsync(Hasty):
    @tool
    async def hang(self) -> str:
        """Hang."""
        await asyncio.sleep(100)
        return ""


def alive(of=None):
    """Descendants of this process (or of `of`) that run."""
    found, frontier = set(), {os.getpid() if of is None else of}
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = entry.read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state not in "ZX":
            parents[int(entry.parent.name)] = int(parent)
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier}
        found |= frontier
    return found


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def gone(pids, seconds=60.0):
    until = time.monotonic() + seconds
    while any(runs(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(runs(pid) for pid in pids)


def here(environment):
    """The same in this process."""
    environment.runs_in = "thread"
    return adapt(environment)


def task(seed=0):
    return Task("t", "counter", seed)


async def said(world, name, **arguments):
    return (await world.step(call(name, **arguments))).observation.messages[0].content


def line_of(function, offset):
    return f"{__file__}:{function.__code__.co_firstlineno + offset}"


@pytest.mark.parametrize("kind", [Counter, AsyncCounter])
@pytest.mark.parametrize("choose", [oracle_agent, random_agent])
async def test_an_episode_is_the_same_in_a_process_and_in_a_thread(kind, choose):
    tasks = list(itertools.islice(here(kind(target=4)).tasks("test"), 2))
    for one in tasks:
        played = []
        for place in (adapt, here):
            world = place(kind(target=4, path=Path("x")))
            played.append(await play(world, one, choose, random.Random(7)))
            await world.close()
        assert difference(*played) is None
        assert played[0].actions == played[1].actions


async def test_tasks_demonstrations_and_cheats_are_the_authors_own():
    world, near = adapt(Counter()), here(Counter())
    for split in ("train", "test"):
        assert list(world.tasks(split)) == list(near.tasks(split))
    first = next(iter(world.tasks("train")))
    assert (first.split, first.data["big"]) == ("train", 2**70)
    rngs = random.Random(5), random.Random(5)
    lines = []
    for place, rng in zip((world, near), rngs, strict=True):
        await place.reset(task(1))
        lines.append(list(itertools.islice(place.demonstrate(task(1), rng), 3)))
        assert {name: len(list(line)) for name, line in place.cheats(task(1)).items()} == {"from -1": 8}
        await place.close()
    assert lines[0] == lines[1] and rngs[0].getstate() == rngs[1].getstate()


async def test_an_event_loop_of_a_worker_goes_on_between_two_steps():
    world = adapt(Beating())
    world.max_steps = 1000
    await world.reset(task())
    before = int(await said(world, "heard"))
    # The worker beats while nobody asks; each question takes longer than nothing.
    assert any([int(await said(world, "heard")) > before for _ in range(200)])
    await world.close()


async def test_ten_megabytes_come_through_and_snapshots_return():
    world, other = adapt(Counter()), adapt(Counter())
    assert isinstance(world, protocols.Environment | protocols.Snapshots | protocols.HasOracle)
    await world.reset(task())
    assert await said(world, "much", size=10_000_000) == "é" * 10_000_000
    await world.step(call("add"))
    snapshot = await world.snapshot()
    await world.step(call("add"))
    assert (await other.restore(snapshot)).state_key == (await world.restore(snapshot)).state_key == "1"
    for copy in (world, other):
        assert (await copy.step(call("add"))).observation.state_key == "2"
        await copy.close()


async def test_two_copies_do_not_touch_and_a_worker_is_used_again():
    one, other = adapt(Broken()), adapt(Broken())
    await asyncio.gather(one.reset(task()), other.reset(task()))
    pids = [int(await said(world, "pid")) for world in (one, other)]
    await one.step(call("add"))
    assert (await other.step(call("add"))).observation.state_key == "1"
    assert len({*pids, os.getpid()}) == 3
    await one.close()
    await other.close()
    third = adapt(Broken(target=5))
    assert (await third.reset(task())).messages[-1].content == "From 0 to 5."
    assert int(await said(third, "pid")) in pids
    await third.close()


@pytest.mark.parametrize(
    ("kind", "name", "offset"), [(Hasty, "hang", 3), (HastyAsync, "hang", 3), (Hasty, "compute", 3)]
)
async def test_a_hang_is_ended_and_named(kind, name, offset):
    world = adapt(kind())
    await world.reset(task())
    pid, child = int(await said(world, "pid")), int(await said(world, "start"))
    with pytest.raises(AuthorFault, match=f"{name} did not come back within 1 s") as caught:
        await world.step(call(name))
    assert (caught.value.kind, caught.value.where) == ("deadline", line_of(getattr(kind, name), offset))
    await world.close()
    assert gone({pid, child})


@pytest.mark.parametrize(
    ("name", "what", "offset"), [("crash", "was ended by SIGSEGV", 3), ("leave", "ended with exit code 3", 0)]
)
async def test_a_crash_is_a_fault_with_its_place_and_the_last_words(name, what, offset):
    world = adapt(Broken())
    await world.reset(task())
    with pytest.raises(AuthorFault, match=f"the process of Broken {what} in `{name}`") as caught:
        await world.step(call(name))
    assert (caught.value.kind, caught.value.method) == ("crashed", name)
    assert caught.value.where == line_of(getattr(Broken, name), offset)
    if name == "leave":
        assert "last words" in str(caught.value)
    with pytest.raises(EnvironmentFault, match="make a new instance"):
        await world.step(call("add"))
    await world.close()
    fresh = adapt(Broken())
    assert (await fresh.reset(task())).state_key == "0"
    await fresh.close()


async def test_a_worker_that_the_system_kills_is_no_fault_of_the_environment():
    world = adapt(Broken())
    await world.reset(task())
    with pytest.raises(InfrastructureFault, match="SIGKILL in `be_killed`, which the system does where memory"):
        await world.step(call("be_killed"))
    await world.close()


@pytest.mark.parametrize("text", ["ffffffff", "0000000568656c6c6f", "00000006" + b"[null]".hex(), "00000001"])
async def test_what_is_no_answer_ends_the_worker_and_names_the_method(text):
    world = adapt(Broken())
    await world.reset(task())
    pid = int(await said(world, "pid"))
    with pytest.raises(
        AuthorFault, match=r"the process of Broken answered what cannot be read .* in `babble`"
    ) as caught:
        await world.step(call("babble", text=text))
    assert (caught.value.kind, caught.value.method) == ("crashed", "babble")
    await world.close()
    assert gone({pid})


async def test_a_worker_that_was_killed_while_it_waited_is_replaced_unnoticed():
    WORKERS.close()
    first = adapt(Broken())
    await first.reset(task())
    pid = int(await said(first, "pid"))
    await first.close()
    assert WORKERS.pids() == {pid}
    os.kill(pid, signal.SIGKILL)
    # Not reaped, since that is for its driver.
    await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    second = adapt(Broken())
    await second.reset(task())
    assert int(await said(second, "pid")) != pid
    await second.close()


async def test_a_worker_that_was_killed_between_two_steps_is_no_fault_of_the_environment():
    world = adapt(Broken())
    await world.reset(task())
    os.kill(int(await said(world, "pid")), signal.SIGKILL)
    with pytest.raises(InfrastructureFault, match="was ended by SIGKILL in `add`"):
        await world.step(call("add"))
    await world.close()


CHATTY = """
import os, subprocess
from agentrl import Env, Task
print("garbage" * 1000)
os.write(1, bytes([255] * 99))
subprocess.run(["echo", "more"])

class Chatty(Env):
    def tasks(self, split):
        print("tasks")
        yield Task("t", "chatty", 0)

    def reset(self, task):
        return "here"

    def reward(self):
        return 1.0
"""


async def test_a_plugin_may_print_while_it_is_imported(tmp_path):
    (tmp_path / "chatty_world.py").write_text(CHATTY)
    world = open_remote(Address("chatty_world", "Chatty", str(tmp_path / "chatty_world.py")), {})
    assert [one.id for one in world.tasks("train")] == ["t"]
    assert (await world.reset(task())).messages[-1].content == "here"
    await world.close()


async def test_a_hundred_megabytes_are_cut_where_they_are_said():
    world = adapt(Loud())
    await world.reset(task())
    assert 1000 <= len(await said(world, "shout")) < 1200
    await world.close()


async def test_an_exception_keeps_its_place_and_its_worker_is_not_used_again():
    world = adapt(Broken())
    await world.reset(task())
    pid = int(await said(world, "pid"))
    with pytest.raises(AuthorFault, match=r"Broken.fail raised KeyError: 'nothing' at ") as caught:
        await world.step(call("fail"))
    assert caught.value.where == line_of(Broken.fail, 3)
    await world.close()
    assert gone({pid})


async def test_a_cancelled_step_ends_its_worker_at_close():
    class_deadline = Broken.step_deadline
    world = adapt(Broken())
    world.step_deadline = 60.0
    await world.reset(task())
    pid = int(await said(world, "pid"))
    step = asyncio.create_task(world.step(call("hang")))
    await asyncio.sleep(0.05)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    await world.close()
    assert gone({pid}) and Broken.step_deadline == class_deadline


def test_what_cannot_be_made_elsewhere_says_why():
    class Local(Counter):
        pass

    with pytest.raises(PluginError, match=r"Local at .* cannot run in a process, since no other process can import it"):
        adapt(Local())
    with pytest.raises(PluginError, match=r"Counter was made with .*, which cannot travel"):
        adapt(Counter(path=None, target=object()))


def test_the_check_of_an_environment_holds_in_a_process():
    report = check_environment(functools.partial(Counter, target=7), tasks=2)
    assert report.ok, str(report)


DRIVER = """
import asyncio, sys
from agentrl.environment import adapt, call
from test_worker_processes import Broken, task

async def main():
    worlds = [adapt(Broken()) for _ in range(3)]
    for world in worlds:
        world.step_deadline = 100.0
        await world.reset(task())
    await worlds[0].step(call("start"))
    await worlds[2].close()
    waits = [asyncio.create_task(worlds[0].step(call("hang")))]
    await asyncio.sleep(0.1)
    print("ready", flush=True)
    await asyncio.gather(*waits)

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_is_killed_or_interrupted_leaves_nothing(number):
    """One worker waits, one is idle between two episodes, one hangs and has started a process."""
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert driver.stdout is not None and driver.stdout.readline() == b"ready\n"
    started = alive(driver.pid)
    assert len(started) == 4
    driver.send_signal(number)
    driver.wait(60)
    driver.stdout.close()
    assert gone(started)
