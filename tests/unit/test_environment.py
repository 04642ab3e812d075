"""An author's class becomes an environment whose mistakes, faults and deadlines are kept apart."""

import asyncio
import math
import threading
import time

import pytest

from agentrl import protocols
from agentrl.blame import AuthorFault
from agentrl.environment import Env, adapt, call, say
from agentrl.errors import EnvironmentFault, InfrastructureFault, PluginError
from agentrl.tools import ToolError, tool
from agentrl.types import Action, Message, Observation, Task, ToolCall


class Counter(Env):
    """Count to the target."""

    max_steps = 4
    system = "Count."
    target = 3

    def tasks(self, split):
        yield from (Task(f"{split}-{seed}", "counter", seed) for seed in range(3))

    def reset(self, task):
        self.count = task.seed
        self.threads = [threading.current_thread().name]
        return f"Count from {task.seed} to {self.target}."

    @tool
    def add(self, n: int = 1) -> str:
        """Add.

        n: how much
        """
        self.threads.append(threading.current_thread().name)
        if n < 0:
            raise ToolError(f"{n} is negative")
        self.count += n
        return f"now {self.count}"

    @tool
    def state(self) -> dict[str, int]:
        """Show."""
        return {"count": self.count}

    def done(self):
        return self.count >= self.target

    def step_reward(self):
        return 0.25

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


class InlineCounter(Counter):
    runs_in = "loop"


class AsyncCounter(Counter):
    async def reset(self, task):
        await asyncio.sleep(0)
        return Counter.reset(self, task)

    @tool
    async def add(self, n: int = 1) -> str:
        """Add."""
        await asyncio.sleep(0)
        return Counter.add(self, n)

    async def reward(self):
        return Counter.reward(self)


def task(seed=0):
    return Task("t", "counter", seed)


def line_of(function, offset):
    return f"{__file__}:{function.__code__.co_firstlineno + offset}"


@pytest.mark.parametrize("kind", [Counter, InlineCounter, AsyncCounter])
async def test_an_episode_is_the_same_in_a_thread_inline_and_async(kind):
    world = adapt(kind())
    first = await world.reset(task(1))
    assert [(m.role, m.content) for m in first.messages] == [("system", "Count."), ("user", "Count from 1 to 3.")]
    assert first.state_key == "1"
    one = await world.step(call("add", n=1))
    assert one.observation.messages == (Message("tool", "now 2", name="add"),)
    assert (one.reward, one.terminated, one.truncated, dict(one.scores)) == (0.25, False, False, {})
    two = await world.step(call("add"))
    assert (two.reward, two.terminated, two.observation.state_key) == (1.25, True, "3")
    assert dict(two.scores) == {"success": 1.0}
    await world.close()


async def test_plain_methods_run_in_one_thread_of_their_own_and_inline_ones_do_not():
    own, inline = adapt(Counter()), adapt(InlineCounter())
    for world in (own, inline):
        await world.reset(task())
        await world.step(call("add"))
        await world.close()
    assert own.author.threads == ["agentrl-Counter"] * 2
    assert inline.author.threads == [threading.current_thread().name] * 2


async def test_several_calls_run_in_order_with_one_message_each():
    world = adapt(Counter())
    await world.reset(task())
    calls = (ToolCall("add", {"n": 1}, "a"), ToolCall("state", {}, "b"), ToolCall("ad", {}, "c"))
    result = await world.step(Action(tool_calls=calls))
    assert [(m.role, m.name, m.call_id) for m in result.observation.messages] == [
        ("tool", "add", "a"),
        ("tool", "state", "b"),
        ("tool", "ad", "c"),
    ]
    assert [m.content for m in result.observation.messages[:2]] == ["now 1", '{"count":1}']
    assert "Did you mean 'add'" in result.policy_error
    await world.close()


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (call("add", n=-2), "-2 is negative"),
        (call("add", n="2"), "valid integer"),
        (call("subtract"), "no tool is called 'subtract'"),
        (Action(error="the call is cut off"), "the call is cut off"),
    ],
)
async def test_the_models_mistakes_are_told_and_the_episode_goes_on(action, said):
    world = adapt(Counter())
    await world.reset(task())
    result = await world.step(action)
    assert said in result.policy_error
    assert said in result.observation.messages[0].content
    assert not result.terminated and math.isfinite(result.reward)
    assert (await world.step(call("add"))).policy_error == ""
    await world.close()


async def test_speaking_ends_the_episode_unless_the_user_replies():
    class Talker(Counter):
        def answered(self, text):
            return None if text == "bye" else f"you said {text}"

    world = adapt(Talker())
    await world.reset(task())
    result = await world.step(say("hello"))
    assert result.observation.messages == (Message("user", "you said hello"),) and not result.terminated
    assert (await world.step(say("bye"))).terminated
    await world.close()


async def test_the_step_limit_truncates_and_grades():
    world = adapt(Counter())
    await world.reset(task(-9))
    results = [await world.step(call("add")) for _ in range(4)]
    assert [r.truncated for r in results] == [False, False, False, True]
    assert not results[-1].terminated and dict(results[-1].scores) == {"success": 0.0}
    with pytest.raises(EnvironmentFault, match="without a running episode"):
        await world.step(call("add"))
    await world.close()


async def test_long_text_is_cut_with_a_note():
    class Wordy(Counter):
        text_limit = 50

        @tool
        def shout(self) -> str:
            """Shout."""
            return "x" * 10_000_000

    world = adapt(Wordy())
    await world.reset(task())
    text = (await world.step(call("shout"))).observation.messages[0].content
    assert text == "x" * 50 + "\n[cut: 10,000,000 characters, the first 50 are shown]"
    await world.close()


class Broken(Counter):
    let_go = threading.Event()

    @tool
    def crash(self) -> str:
        """Crash."""
        return {}["nothing"]

    @tool
    def leave(self) -> str:
        """Leave."""
        raise SystemExit(3)

    @tool
    def hang(self) -> str:
        """Hang."""
        self.let_go.wait()
        return ""

    @tool
    async def wait(self) -> str:
        """Wait."""
        await asyncio.sleep(30)
        return ""

    @tool
    def judge(self) -> str:
        """Judge."""
        raise InfrastructureFault("the judge is down")

    @tool
    def odd(self) -> object:
        """Odd."""
        return object()


class AllSyncBroken(Broken):
    wait = None


@pytest.mark.parametrize("kind", [Broken, AllSyncBroken])
async def test_an_exception_is_a_fault_with_class_method_file_and_line(kind):
    world = adapt(kind())
    await world.reset(task())
    with pytest.raises(AuthorFault) as caught:
        await world.step(call("crash"))
    assert str(caught.value).startswith(f"{kind.__name__}.crash raised KeyError: 'nothing' at ")
    assert caught.value.where == line_of(Broken.crash, 3)
    assert (caught.value.kind, caught.value.method) == ("raised", "crash")
    with pytest.raises(AuthorFault, match="leave raised SystemExit"):
        await world.step(call("leave"))
    with pytest.raises(InfrastructureFault, match="the judge is down"):
        await world.step(call("judge"))
    with pytest.raises(AuthorFault, match=r"odd returned <object object at .*allowed is a str or JSON"):
        await world.step(call("odd"))
    await world.close()


@pytest.mark.parametrize(("kind", "name"), [(AllSyncBroken, "hang"), (Broken, "hang"), (Broken, "wait")])
async def test_a_step_that_hangs_is_cut_at_its_deadline_and_named(kind, name, monkeypatch):
    monkeypatch.setattr(Broken, "let_go", threading.Event())
    world = adapt(kind())
    await world.reset(task())
    # From here on: what comes before the hang may take as long as a busy machine needs.
    world.step_deadline = 0.2
    with pytest.raises(AuthorFault, match=f"{name} did not come back within 0.2 s") as caught:
        await world.step(call(name))
    assert caught.value.kind == "deadline"
    assert caught.value.where == line_of(getattr(Broken, name), 3)
    with pytest.raises(EnvironmentFault, match="make a new instance"):
        await world.reset(task())
    Broken.let_go.set()
    await world.close()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "much"])
async def test_a_reward_that_is_no_finite_number_is_a_fault(value):
    class Rich(Counter):
        def step_reward(self):
            return value

    world = adapt(Rich())
    await world.reset(task())
    with pytest.raises(AuthorFault, match=r"step_reward returned .* allowed is a finite number") as caught:
        await world.step(call("add"))
    assert caught.value.kind == "not_finite"
    assert caught.value.where == line_of(Rich.step_reward, 0)
    await world.close()


async def test_scores_are_checked_and_success_can_be_set():
    class Graded(InlineCounter):
        grades = {"success": 0.0, "style": 0.5}  # noqa: RUF012

        def scores(self):
            return self.grades

    world = adapt(Graded())
    await world.reset(task(2))
    assert dict((await world.step(call("add"))).scores) == {"success": 0.0, "style": 0.5}
    world.author.grades = {"style": float("inf")}
    await world.reset(task(2))
    with pytest.raises(AuthorFault, match="scores returned inf"):
        await world.step(call("add"))
    await world.close()


async def test_snapshots_return_to_the_same_step_in_another_instance():
    world, other = adapt(Counter()), adapt(Counter())
    assert isinstance(world, protocols.Environment | protocols.Snapshots | protocols.HasOracle)
    await world.reset(task())
    await world.step(call("add"))
    snapshot = await world.snapshot()
    await world.step(call("add"))
    assert (await other.restore(snapshot)).state_key == "1"
    assert (await world.restore(snapshot)).state_key == "1"
    for copy in (world, other):
        flags = [(r.truncated, r.terminated) for r in [await copy.step(call("state")) for _ in range(3)]]
        assert flags == [(False, False), (False, False), (True, False)]
        await copy.close()


async def test_what_the_author_does_not_offer_the_adapter_does_not_have():
    class Plain(Env):
        def tasks(self, split):
            yield Task("t", "plain")

        def reset(self, task):
            return Observation((Message("user", "hi"),), state_key="start")

    world = adapt(Plain())
    assert not isinstance(world, protocols.Snapshots) and not isinstance(world, protocols.HasOracle)
    assert not hasattr(world, "demonstrate")
    assert (await world.reset(Task("t", "plain"))).state_key == "start"
    await world.close()


def test_tasks_are_lazy_marked_with_their_split_and_checked():
    class Endless(Counter):
        def tasks(self, split):
            seed = 0
            while True:
                yield Task(f"{split}-{seed}", "endless", seed) if seed < 2 else "no task"
                seed += 1

    tasks = adapt(Endless()).tasks("test")
    assert next(iter(tasks)).split == "test"
    next(tasks)
    with pytest.raises(AuthorFault, match=r"tasks returned 'no task' .* allowed is Task objects"):
        next(tasks)


async def test_close_runs_once_and_works_without_a_reset():
    class Closing(Counter):
        closed = 0

        def close(self):
            self.closed += 1

    world = adapt(Closing())
    await world.close()
    await world.close()
    assert world.author.closed == 1
    with pytest.raises(EnvironmentFault, match="after `close`"):
        await world.reset(task())


async def test_a_cancelled_step_leaves_the_world_closable():
    class Slow(Counter):
        @tool
        def add(self, n: int = 1) -> str:
            """Add."""
            time.sleep(0.2)
            return ""

        def close(self):
            self.closed_in = threading.current_thread().name

    world = adapt(Slow())
    await world.reset(task())
    step = asyncio.create_task(world.step(call("add")))
    await asyncio.sleep(0.05)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    await world.close()
    assert world.author.closed_in == "agentrl-Slow"


async def test_a_plain_method_that_returns_an_awaitable_is_named():
    class Disguised(Counter):
        def done(self):
            return asyncio.sleep(0, result=True)

    world = adapt(Disguised())
    await world.reset(task())
    with pytest.raises(EnvironmentFault, match="write it as `async def`"):
        await world.step(call("add"))
    await world.close()


def test_adapt_takes_instances_only_and_leaves_the_protocol_alone():
    world = adapt(Counter())
    assert adapt(world) is world
    with pytest.raises(PluginError, match="It is a class: call it"):
        adapt(Counter)
    with pytest.raises(PluginError, match="is no environment"):
        adapt("keydoor")


def test_limits_must_be_positive():
    class Never(Counter):
        max_steps = 0

    with pytest.raises(PluginError, match="max_steps 0"):
        adapt(Never())


def test_call_and_say_make_plain_json_actions():
    action = call("paint", color=("red", "blue"), name="x")
    assert action.tool_calls == (ToolCall("paint", {"color": ["red", "blue"], "name": "x"}),)
    assert say("hi") == Action(text="hi")


def test_oracle_faults_are_named():
    class Lost(Counter):
        def oracle(self, task):
            yield call("add")
            raise IndexError("no way")

    world = adapt(Lost())
    line = iter(world.oracle(task()))
    next(line)
    with pytest.raises(AuthorFault, match="oracle raised IndexError: no way") as caught:
        next(line)
    assert caught.value.where == line_of(Lost.oracle, 2)
