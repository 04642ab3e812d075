"""ScienceWorld: the shipped check passes, its splits are kept, the oracle wins, and a Java process is used again."""

from __future__ import annotations

import os
import shutil
import signal
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("scienceworld", reason="scienceworld is not installed")

from agentrl_scienceworld.java import WAITING
from agentrl_scienceworld.plugin import final_score, suite
from agentrl_scienceworld.simulation import plain_tree
from agentrl_scienceworld.splits import SIZES, in_turns, variations
from agentrl_scienceworld.world import ScienceWorld, ScienceWorldCommands

from agentrl import EnvironmentFault, Task, ToolError, call
from agentrl.environment import adapt
from agentrl.remote.pool import WORKERS
from agentrl.testing import assert_environment

pytestmark = pytest.mark.skipif(not shutil.which("java"), reason="no java (apt-get install openjdk-17-jre-headless)")
SHORT = ["lifespan-longest-lived", "find-non-living-thing"]


def task(name: str, variation: int) -> Task:
    return Task(f"{name}-{variation}", "scienceworld", variation, {"task": name, "variation": variation})


def javas() -> set[int]:
    """Every Java process that is alive on this machine and whose command is the simulator's gateway."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"py4j.GatewayServer" in entry.read_bytes():
                found.add(int(entry.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_it_passes_the_check_in_worker_processes_and_leaves_no_java() -> None:
    before = javas()
    # No name that another interpreter finds: what those would show, at a Java process each, is tested below.
    assert_environment(lambda: ScienceWorldCommands(tasks=SHORT, max_steps=8), tasks=1)
    WORKERS.close()
    assert javas() <= before


def test_the_splits_are_the_simulators_own() -> None:
    world = ScienceWorld()
    world.reset(task("boil", 0))
    simulator = world.world._world
    assert list(simulator.getTaskNames()) == list(SIZES)
    assert {name: simulator.getTaskMaxVariations(name) for name in SIZES} == {name: sum(SIZES[name]) for name in SIZES}
    for name in ("boil", "identify-life-stages-1", "inclined-plane-friction-named-surfaces"):
        simulator.load(name, 0, "", False)
        theirs = simulator.getVariationsTrain(), simulator.getVariationsDev(), simulator.getVariationsTest()
        assert [list(found) for found in theirs] == [
            list(variations(name, split)) for split in ("train", "dev", "test")
        ]
    world.close()


def test_tasks_take_turns_and_the_splits_share_none() -> None:
    first = list(islice(in_turns(tuple(SIZES), "train", None), 31))
    assert len({name for name, _ in first[:30]}) == 30 and first[30] == ("boil", 1)
    world, dev = ScienceWorld(), ScienceWorld(held_out="dev")
    ids = [{found.id for found in tasks} for tasks in (world.tasks("train"), dev.tasks("test"), world.tasks("test"))]
    assert [len(found) for found in ids] == [3592, 1796, 1819] and len(set.union(*ids)) == 7207
    assert len(suite().tasks) == 271


def test_the_reward_is_what_an_action_adds_to_the_score() -> None:
    """An electric circuit: the way of the simulator's own agent earns 1 in all, and the last action ends it."""
    world = ScienceWorld(tasks=["power-component"])
    todo = task("power-component", 2)
    assert "turn on" in world.reset(todo)
    earned = []
    for action in world.oracle(todo):
        assert not world.done()
        world.act(**action.tool_calls[0].arguments)
        earned.append(world.step_reward())
    assert world.done() and sum(earned) == pytest.approx(1.0) and min(earned) == 0.0
    assert world.scores() == {"success": 1.0, "score": 1.0}
    world.reset(todo)
    world.act("focus on air")
    assert world.step_reward() == -1.0 and world.done() and world.scores() == {"success": 0.0, "score": -1.0}
    with pytest.raises(ToolError, match="it is over"):
        world.act("look around")
    world.close()


def test_the_same_commands_lead_to_the_same_state_in_another_java_after_other_episodes() -> None:
    """Temperatures flow through sets of objects: the sum over twenty moments shows their order."""
    todo, commands = task("boil", 3), ["open door to kitchen", "wait", "wait1", "go to kitchen", "look around", "wait"]
    first, second = ScienceWorld(), ScienceWorld()
    second.reset(task("find-animal", 7))
    second.act("wait")
    seen = []
    for world in (first, second):
        shown = [world.reset(todo)]
        for command in commands:
            try:
                shown.append(world.act(command))
            except ToolError as refused:
                shown.append(str(refused))
        seen.append((shown, world.state_key(), world.world._world.agentInterface().get().agent().getName()))
    assert seen[0] == seen[1]
    assert first._java is not None and second._java is not None and first._java.pid != second._java.pid
    kept = first.snapshot()
    first.act("open cupboard")
    assert first.state_key() != kept["key"]
    first.restore(kept)
    assert first.state_key() == kept["key"] and first.step_reward() == 0.0
    with pytest.raises(EnvironmentFault, match="led to the state"):
        first.restore({"played": kept["played"][:-1], "key": kept["key"]})
    for world in (first, second):
        world.close()


def test_a_java_process_serves_the_next_episode_and_one_that_died_does_not() -> None:
    WAITING.end()
    first = ScienceWorld()
    first.reset(task("melt", 0))
    assert first._java is not None
    pid = first._java.pid
    first.close()
    second = ScienceWorld()
    second.reset(task("freeze", 1))
    assert second._java is not None and second._java.pid == pid
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(EnvironmentFault, match=r"simulator failed.*ended with code -9"):
        second.act("wait")
    second.close()
    third = ScienceWorldCommands()
    third.reset(task("freeze", 1))
    assert third._java is not None and third._java.pid != pid
    before = third.state_key()
    assert third.list_commands("Open door") == "open door"
    listed = third.list_commands("Door").splitlines()
    assert "open door" in listed
    assert [len(line) for line in listed[:40]] == sorted(len(line) for line in listed[:40]) and len(listed) <= 41
    assert third.list_commands("zebra") == "No command with 'zebra' does anything here."
    with pytest.raises(ToolError, match=r"No known action matches that input\."):
        third.act("fly to the moon")
    assert third.world.key() == before
    third.close()
    WAITING.end()
    assert third._java is None and not Path(f"/proc/{pid}").exists()


async def test_java_that_dies_in_a_worker_is_a_fault_of_the_call_that_met_it() -> None:
    before = javas()
    environment = adapt(ScienceWorld())
    await environment.reset(task("melt", 0))
    (java,) = javas() - before
    os.kill(java, signal.SIGKILL)
    with pytest.raises(EnvironmentFault, match="simulator failed"):
        await environment.step(call("act", command="wait"))
    await environment.close()
    WORKERS.close()


def test_equal_worlds_have_equal_trees_whatever_was_numbered_before() -> None:
    def room(first: int, order: tuple[str, str], degrees: float) -> dict[str, object]:
        ends = {"anode": str(first + 1), "cathode": str(first + 2)}
        inside = {
            f"{name}-{ends[name]}": {
                "uuid": ends[name],
                "name": name,
                "propElectricalConnection": {"connectedTo": [ends["cathode" if name == "anode" else "anode"]]},
                "contents": {},
            }
            for name in order
        }
        return {"uuid": str(first), "name": "room", "propMaterial": {"temperatureC": degrees}, "contents": inside}

    one = plain_tree(room(5, ("anode", "cathode"), 10.2))
    assert one == plain_tree(room(700, ("cathode", "anode"), 9.9))
    assert one != plain_tree(room(5, ("anode", "cathode"), 11.2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tasks": ["boyl"]}, "no task 'boyl'. Did you mean 'boil'"),
        ({"tasks": ["1-1", "boil"]}, "a task twice"),
        ({"simplifications": ["easier"]}, "no simplification 'easier'"),
        ({"simplifications": ["noElectricalAction"]}, "cannot be won with noElectricalAction"),
        ({"most": 0}, "at least 1 variation"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ScienceWorld(**options)  # type: ignore[arg-type]


def test_without_java_the_error_says_what_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(Exception, match=r"there is no program `java` under JAVA_HOME.*openjdk-17-jre-headless"):
        ScienceWorld()


@pytest.mark.parametrize(("score", "counted"), [(-1.0, 0.0), (0.83, 0.83)])
def test_a_negative_score_counts_as_nothing_in_the_suite(score: float, counted: float) -> None:
    assert final_score(SimpleNamespace(steps=[SimpleNamespace(scores={"score": score})])) == counted  # type: ignore[arg-type]
    assert final_score(SimpleNamespace(steps=[])) == 0.0  # type: ignore[arg-type]
