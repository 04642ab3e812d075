"""The environment check passes sound worlds and names what is wrong with the others, with file and line.

One sick environment per check; each differs from a sound one in a single method.
"""

import asyncio
import functools
import itertools
import random
import subprocess
import sys
import threading
import time
from typing import Literal

import pytest

from agentrl.environment import Env, call
from agentrl.errors import ConfigError
from agentrl.options import build
from agentrl.testing import NullAgent, RandomAgent, ScriptedAgent, assert_environment, check_environment
from agentrl.testing.elsewhere import taken_apart
from agentrl.testing.episodes import DEFAULT_STEPS, limits_of
from agentrl.tools import ToolError, tool
from agentrl.types import Action, Message, Observation, StepResult, Task, ToolSpec

PAIRS = list(itertools.permutations(("red", "green", "blue", "yellow"), 2))


class Boxes(Env):
    """Open two boxes in the order asked for."""

    max_steps = 4
    runs_in = "loop"

    def tasks(self, split):
        for index, pair in enumerate(PAIRS):
            if (index % 4 == 0) == (split == "test"):
                yield Task(f"{split}-{'-'.join(pair)}", "boxes", data={"pair": list(pair)})

    def reset(self, task):
        self.wanted, self.opened = task.data["pair"], []
        return f"Open {self.wanted[0]}, then {self.wanted[1]}."

    @tool
    def open_box(self, color: Literal["red", "green", "blue", "yellow"]) -> str:
        """Open a box."""
        self.opened.append(color)
        return f"You opened {color}."

    def done(self):
        return len(self.opened) == 2

    def reward(self):
        return float(self.opened == self.wanted)

    def state_key(self):
        return "-".join(self.opened)

    def snapshot(self):
        return {"opened": self.opened}

    def restore(self, snapshot):
        self.opened = snapshot["opened"]

    def oracle(self, task):
        for color in self.wanted:
            yield call("open_box", color=color)

    def cheats(self, task):
        return {"reversed": (call("open_box", color=color) for color in reversed(self.wanted))}

    def close(self):
        self.wanted = None


class ThreadBoxes(Boxes):
    runs_in = "thread"


class AsyncBoxes(Boxes):
    async def reset(self, task):
        await asyncio.sleep(0)
        return Boxes.reset(self, task)

    @tool
    async def open_box(self, color: Literal["red", "green", "blue", "yellow"]) -> str:
        """Open a box."""
        await asyncio.sleep(0.001)
        return Boxes.open_box(self, color)

    async def close(self):
        await asyncio.sleep(0)


class Hanging(ThreadBoxes):
    step_deadline = 0.3

    @tool
    def open_box(self, color: Literal["red", "green", "blue", "yellow"]) -> str:
        """Open a box."""
        time.sleep(1.5)
        return ""


class AsyncHanging(Boxes):
    reset_deadline = 0.3

    async def reset(self, task):
        await asyncio.Event().wait()
        return ""


class Blocking(Boxes):
    @tool
    async def open_box(self, color: Literal["red", "green", "blue", "yellow"]) -> str:
        """Open a box."""
        if Blocking.slept < 2:
            Blocking.slept += 1
            time.sleep(0.3)  # noqa: ASYNC251
        return Boxes.open_box(self, color)

    slept = 0


class LoadsOnce(Boxes):
    @tool
    async def open_box(self, color: Literal["red", "green", "blue", "yellow"]) -> str:
        """Open a box."""
        if not LoadsOnce.loaded:
            LoadsOnce.loaded = True
            time.sleep(0.3)  # noqa: ASYNC251
        return Boxes.open_box(self, color)

    loaded = False


class Computing(Boxes):
    computed = 0

    def done(self):
        end = time.monotonic() + (0.4 if Computing.computed < 2 else 0)
        while time.monotonic() < end:
            pass
        Computing.computed += 1
        return Boxes.done(self)


class NanReward(Boxes):
    def reward(self):
        return float("nan")


class LeaksProcess(Boxes):
    children = []  # noqa: RUF012

    def reset(self, task):
        self.children.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return Boxes.reset(self, task)

    def close(self):
        self.wanted = None


class LeaksThread(Boxes):
    gate = threading.Event()

    def reset(self, task):
        threading.Thread(target=self.gate.wait, daemon=True, name="leaked").start()
        return Boxes.reset(self, task)


class LeaksTask(Boxes):
    async def reset(self, task):
        self.background = asyncio.create_task(self.listen())
        return Boxes.reset(self, task)

    async def listen(self):
        await asyncio.sleep(3600)


class Nondeterministic(Boxes):
    @tool
    def open_box(self, color: Literal["red", "green", "blue", "yellow"]) -> str:
        """Open a box."""
        return f"{Boxes.open_box(self, color)} {random.random()}"


class SharedState(Boxes):
    memory = []  # noqa: RUF012

    def reset(self, task):
        SharedState.memory.clear()
        self.wanted = task.data["pair"]
        return f"Open {self.wanted[0]}, then {self.wanted[1]}."

    @property
    def opened(self):
        return SharedState.memory


class NotJson(Boxes):
    def tasks(self, split):
        yield from (Task(f"{split}-{i}", "boxes", data={"pair": pair}) for i, pair in enumerate(PAIRS))


class SameIds(Boxes):
    def tasks(self, split):
        yield from (Task(f"{i}", "boxes", data={"pair": list(pair)}) for i, pair in enumerate(PAIRS))


class TwiceTheId(Boxes):
    def tasks(self, split):
        yield from (Task(split, "boxes", data={"pair": list(pair)}) for pair in PAIRS)


class MovingTasks(Boxes):
    made = itertools.count()

    def tasks(self, split):
        yield from (Task(f"{split}-{next(self.made)}", "boxes", data={"pair": list(pair)}) for pair in PAIRS)


class NullWins(Boxes):
    def reward(self):
        return float(self.opened in ([], self.wanted))


class RandomWins(Boxes):
    def done(self):
        return bool(self.opened)

    def reward(self):
        return float(self.opened[:1] != self.wanted[1:])


class RewardFarm(Boxes):
    """Never successful by chance, but calls alone pay more than the task."""

    max_steps = 8

    def done(self):
        return self.opened == self.wanted

    def step_reward(self):
        return 0.5


class Cheatable(Boxes):
    """Its grader only counts: it cannot tell the asked order from another."""

    def reward(self):
        return float(sorted(self.opened) == sorted(self.wanted))


class LosingOracle(Boxes):
    def oracle(self, task):
        for color in reversed(self.wanted):
            yield call("open_box", color=color)


class ShortOracle(Boxes):
    def oracle(self, task):
        yield call("open_box", color=self.wanted[0])


class WrongTool(Boxes):
    def oracle(self, task):
        yield call("opne_box", color=self.wanted[0])


class SlippedMethod(Boxes):
    def step_rewards(self):
        return 0.1


class SlippedSetting(Boxes):
    step_deadlin = 1.0


class OwnNames(Boxes):
    answer = ""
    closed = False

    def step_rewards(self):
        return 0.1

    def step_reward(self):
        return 0.1 * self.step_rewards()

    def _step_deadlines(self):
        return ()


class BadSnapshot(Boxes):
    def snapshot(self):
        return {"opened": self.opened[:-1]}


class BadClose(Boxes):
    def close(self):
        self.opened.clear()


class Huge(Boxes):
    @tool
    def open_box(self, color: Literal["red", "green", "blue", "yellow"]) -> str:
        """Open a box."""
        return Boxes.open_box(self, color) + "x" * 10_000_000


class Crashing(Boxes):
    @tool
    def open_box(self, color: Literal["red", "green", "blue", "yellow"]) -> str:
        """Open a box."""
        return self.lid[color]


class Undocumented(Boxes):
    @tool
    def shut(self) -> str:
        return "shut"


SICK = [
    (Hanging, "deadline", Hanging.open_box, 3, "open_box did not come back within 0.3 s"),
    (AsyncHanging, "deadline", AsyncHanging.reset, 1, "reset did not come back within 0.3 s"),
    (Blocking, "event_loop", Blocking.open_box, 5, "held for "),
    (NanReward, "rewards", NanReward.reward, 0, "reward returned nan"),
    (LeaksProcess, "close", LeaksProcess.close, 0, "process "),
    (LeaksThread, "close", Boxes.close, 0, "thread leaked"),
    (LeaksTask, "close", LeaksTask.listen, 1, "an asyncio task still runs"),
    (
        Nondeterministic,
        "same_seed",
        Nondeterministic.open_box,
        0,
        "twice with the same actions: at step 0 what is shown was",
    ),
    (SharedState, "parallel", None, 0, "is not as alone"),
    (NotJson, "tasks", NotJson.tasks, 0, "do not survive JSON: {'pair': ('red', 'green')}"),
    (SameIds, "tasks", SameIds.tasks, 0, "12 ids are in train and in test: 0, 1, 10"),
    (TwiceTheId, "tasks", TwiceTheId.tasks, 0, "the id 'train' is used twice"),
    (MovingTasks, "tasks", MovingTasks.tasks, 0, "differs from call to call, at task 0"),
    (NullWins, "null", NullWins.reward, 0, "saying nothing wins"),
    (RandomWins, "random", RandomWins.reward, 0, "random calls win"),
    (RewardFarm, "random", Boxes.reward, 0, "on average, the oracle"),
    (Cheatable, "cheats", Boxes.cheats, 0, "the cheat 'reversed' wins"),
    (LosingOracle, "oracle", LosingOracle.oracle, 0, "no success"),
    (WrongTool, "oracle", WrongTool.oracle, 0, "made a mistake: no tool is called 'opne_box'"),
    (SlippedMethod, "construct", SlippedMethod.step_rewards, 0, "an `Env` has 'step_reward'"),
    (ShortOracle, "oracle", ShortOracle.oracle, 0, "it had no more"),
    (BadSnapshot, "snapshot", Boxes.restore, 0, "after restore ''"),
    (BadClose, "close", BadClose.close, 1, "close raised AttributeError"),
    (Huge, "observations", Huge.open_box, 0, "shows 100,0"),
    (Crashing, "faults", Crashing.open_box, 3, "open_box raised AttributeError"),
    (Undocumented, "tools", Undocumented.shut, 0, "has no description"),
]


@pytest.fixture(autouse=True)
def nothing_stays_behind():
    yield
    LeaksThread.gate.set()
    LeaksThread.gate = threading.Event()
    for child in LeaksProcess.children:
        child.kill()
        child.wait()
    LeaksProcess.children.clear()


@pytest.mark.parametrize("kind", [Boxes, ThreadBoxes, AsyncBoxes])
def test_a_sound_environment_passes_every_check(kind):
    # A lambda: no other process can find it, which saves starting two here (tests/integration does).
    report = check_environment(lambda: kind())
    assert report.ok, str(report)
    assert len(report.results) == 17
    assert [result.name for result in report.results if result.outcome == "skipped"] == ["processes"]
    assert "cannot be imported elsewhere" in report["processes"].what


@pytest.mark.parametrize(("kind", "check", "method", "offset", "said"), SICK, ids=[case[0].__name__ for case in SICK])
def test_a_sick_environment_is_named_with_file_and_line(kind, check, method, offset, said):
    report = check_environment(kind, tasks=4)
    result = report[check]
    assert result.outcome == "failed", str(report)
    assert said in result.what
    assert result.advice
    if method is None:
        assert result.where.startswith(f"{__file__}:")
    else:
        assert result.where == f"{__file__}:{method.__code__.co_firstlineno + offset}"
    assert f"{kind.__name__} is NOT sound" in str(report)


def test_a_setting_that_is_a_slip_is_named_and_names_of_ones_own_are_left_alone():
    said = check_environment(SlippedSetting, tasks=1)["construct"]
    assert (said.outcome, said.what) == (
        "failed",
        "nothing reads SlippedSetting.step_deadlin; an `Env` has 'step_deadline'",
    )
    assert check_environment(lambda: OwnNames(), tasks=1)["construct"].outcome == "ok"


def test_only_the_check_that_is_concerned_fails():
    for kind, check in ((NanReward, "rewards"), (Nondeterministic, "same_seed"), (SharedState, "parallel")):
        assert [result.name for result in check_environment(kind, tasks=4).failures] == [check]


def test_a_plain_loop_that_computes_on_the_event_loop_is_named():
    result = check_environment(Computing, tasks=2)["event_loop"]
    first = Computing.done.__code__.co_firstlineno
    assert result.outcome == "failed"
    assert result.where in [f"{__file__}:{first + offset}" for offset in (2, 3)]


def test_what_is_loaded_once_is_told_and_is_no_failure():
    result = check_environment(LoadsOnce, tasks=2)["event_loop"]
    assert result.outcome == "ok" and "once: what is loaded" in result.what
    assert f"{__file__}:{LoadsOnce.open_box.__code__.co_firstlineno + 5}" in result.what


def test_a_hang_skips_what_would_hang_again():
    report = check_environment(Hanging, tasks=2)
    assert [r.outcome for r in report.results if "a call hangs" in r.what] == ["skipped"] * 7


def test_the_pytest_helper_raises_the_report():
    with pytest.raises(AssertionError, match=r"(?s)failed  cheats .*the cheat 'reversed' wins.*Close the hole"):
        assert_environment(Cheatable)


def test_a_factory_that_raises_is_a_failed_check():
    class Needy(Boxes):
        def __init__(self):
            raise KeyError("DISPLAY")

    report = check_environment(Needy)
    assert [r.name for r in report.failures] == ["construct"]
    assert report["construct"].where == f"{__file__}:{Needy.__init__.__code__.co_firstlineno + 1}"


def test_options_that_do_not_fit_are_an_error_and_no_verdict():
    class Sized(Boxes):
        def __init__(self, size=3):
            if size > 9:
                raise ValueError(f"size is {size}; at most 9 fit.")

    factory = functools.partial(build, Sized, {"size": 10}, where="environment 'sized'")
    with pytest.raises(ConfigError, match=r"^environment 'sized' size is 10; at most 9 fit\.$"):
        check_environment(factory)
    assert taken_apart(factory) == (Sized, {"size": 10})
    assert taken_apart(functools.partial(Sized, size=10)) == (Sized, {"size": 10})


def test_without_an_oracle_the_check_says_so():
    class Blind(Boxes):
        oracle = Env.oracle

    report = check_environment(Blind)  # a local class: no other process can find it
    assert report.ok and report["oracle"].outcome == "skipped"


async def test_it_starts_its_own_event_loop():
    with pytest.raises(ConfigError, match="call it from a plain function"):
        check_environment(Boxes)
    with pytest.raises(ConfigError, match="at least 1 task"):
        check_environment(Boxes, tasks=0)


class Protocolled:
    """An environment of the protocol, without `Env`: guess the color."""

    def __init__(self, reward=1.0):
        self.right = reward

    def tasks(self, split):
        start = 0 if split == "train" else 100
        return [Task(f"{split}-{seed}", "guess", seed, split=split) for seed in range(start, start + 20)]

    def tools(self):
        color = {"type": "integer", "minimum": 0, "maximum": 50}
        schema = {"type": "object", "properties": {"color": color}, "required": ["color"]}
        return [ToolSpec("guess", "Guess.", schema)]

    async def reset(self, task):
        self.color = random.Random(task.seed).randint(0, 50)
        return Observation((Message("user", "guess"),))

    async def step(self, action):
        hit = any(made.arguments.get("color") == self.color for made in action.tool_calls)
        return StepResult(Observation(()), self.right * hit, {"success": float(hit)}, terminated=True)

    async def close(self):
        pass

    def oracle(self, task):
        yield call("guess", color=self.color)


def test_an_object_of_the_protocol_is_checked_too():
    assert check_environment(lambda: Protocolled()).ok
    report = check_environment(lambda: Protocolled(float("inf")))
    assert report["rewards"].outcome == "failed"
    assert report["rewards"].where == f"{__file__}:{Protocolled.step.__code__.co_firstlineno}"


class Late(Protocolled):
    """A server names its tools."""

    color = None

    def tools(self):
        return [] if self.color is None else super().tools()


def test_tools_that_are_named_after_a_reset_are_checked_too():
    assert check_environment(Protocolled)["tools"].what == "1: guess"
    report = check_environment(Late)
    assert report.ok and report["tools"].what == "1: guess"


def test_agents_act_as_they_say():
    rng = random.Random(0)
    observation = Observation((Message("user", "Open the lid, ticket 4711"),))
    spec = ToolSpec("say", "Say.", {"type": "object", "properties": {"t": {"type": "string"}}, "required": ["t"]})
    assert NullAgent().act(observation, [spec], rng) == Action()
    words = {RandomAgent().act(observation, [spec], rng).tool_calls[0].arguments["t"] for _ in range(60)}
    assert words == {"Open", "the", "lid", "ticket", "4711"}
    assert RandomAgent().act(observation, [], rng).text in words
    scripted = ScriptedAgent([Action("one")])
    assert [scripted.act(observation, [], rng).text for _ in range(2)] == ["one", ""]
    assert scripted.exhausted


def test_a_tool_error_is_no_fault():
    class Strict(Boxes):
        @tool
        def open_box(self, color: Literal["red", "green", "blue", "yellow"]) -> str:
            """Open a box."""
            if color in self.opened:
                raise ToolError(f"{color} is open")
            return Boxes.open_box(self, color)

    report = check_environment(Strict)
    assert report.ok, str(report)


class Heard:
    def __init__(self):
        self.checks, self.results = [], []

    def playing(self, check, done, of):
        self.checks.append(check)

    def found(self, result):
        self.results.append(result)


def test_of_a_slow_world_each_check_plays_what_it_can_and_the_report_says_what_was_left_out():
    heard = Heard()
    report = check_environment(lambda: Boxes(), seconds=0.0, progress=heard)
    assert report.ok, str(report)
    assert report["oracle"].what.startswith("wins 2 of 2 tasks")
    assert report["random"].what.startswith("random calls win 0 of 4")
    assert "oracle 2 of 7" in report.left_out and "losing episodes cut" in report.left_out
    assert str(report).endswith(report.left_out)
    assert heard.results == list(report.results)
    assert list(dict.fromkeys(heard.checks))[:4] == ["oracle", "null", "random", "cheats"]
    assert check_environment(lambda: Boxes(), tasks=2).left_out == ""


def test_an_environment_that_leaves_its_steps_to_the_recipe_is_checked_within_a_number_of_them():
    class Agent:
        """As an agent with a loop of its own declares it."""

        max_steps = None

    assert limits_of(Agent())[0] == DEFAULT_STEPS
