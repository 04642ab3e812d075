"""BFCL's multi-turn tasks: ground truths win, wrong lines fail, and the package's own checker says the same."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from itertools import islice

import pytest
from agentrl_bfcl.entries import calls_of, schema
from agentrl_bfcl.plugin import CATEGORIES, NAME, WORLD
from agentrl_bfcl.verify import verify

from agentrl import Task, call, say
from agentrl.errors import ConfigError, EnvironmentFault, MissingDependencyError, PluginError
from agentrl.plugins import load_host
from agentrl.remote.environment import RemoteEnvironment
from agentrl.remote.pool import WORKERS
from agentrl.testing import check_environment
from agentrl.venvs import install


@pytest.fixture(scope="module")
def installed() -> Iterator[None]:
    """The virtual environment of its own, made once: some ten seconds, of which two go to a package index."""
    try:
        install(WORLD, lambda text: None)
    except PluginError as error:
        pytest.skip(f"bfcl-eval cannot be installed here: {error}")
    yield
    WORKERS.close()


def world(**options: object) -> RemoteEnvironment:
    made = WORLD.factory(NAME)(**options)
    assert isinstance(made, RemoteEnvironment)
    return made


def named(name: str) -> Task:
    return Task(name, NAME, data={"entry": name})


def test_calls_of_the_ground_truth_are_read_and_never_evaluated() -> None:
    (one,) = calls_of(["book(1, 'x', seats=[1, 2], fare={'paid': True})"])
    assert (one.name, one.positional, one.named) == ("book", (1, "x"), {"seats": [1, 2], "fare": {"paid": True}})
    with pytest.raises(ValueError, match="no plain call"):
        calls_of(["__import__('os').system('true')"])
    with pytest.raises(ValueError):
        calls_of(["book(open('x'))"])


def test_types_are_those_of_json_schema_at_every_depth() -> None:
    told = {
        "type": "dict",
        "properties": {
            "a": {"type": "float"},
            "b": {"type": "array", "items": {"type": "tuple"}},
            "c": {"type": "any"},
        },
        "required": ["a"],
    }
    assert schema(told) == {
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {"type": "array", "items": {"type": "array"}}, "c": {}},
        "required": ["a"],
    }


def test_the_package_is_missing_until_it_is_installed(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTRL_VENVS", str(tmp_path_factory.mktemp("none")))
    host = load_host(("agentrl_bfcl.plugin",))
    (entry,) = (entry for entry in host.entries("environments") if entry.name == NAME)
    assert entry.state == "missing" and entry.install == f"agentrl env install {NAME}"
    with pytest.raises(MissingDependencyError, match="agentrl env install"):
        host.factory("suites", "bfcl-base")()


def test_ground_truths_win_wrong_lines_do_not_and_the_packages_checker_says_the_same(installed: None) -> None:
    judged = verify(3, official=True)
    assert len(judged) == 4 * 3 * len(CATEGORIES)
    assert all(one.official == one.won for one in judged)
    for one in judged:
        if one.line.kind in ("ground truth", "silence", "a call left out"):
            assert one.won == (one.line.kind == "ground truth"), one.line.task.id


def test_the_benchmark_is_whole_and_a_quarter_of_its_stories_is_held_out(installed: None) -> None:
    env = world()
    whole, train, test = ({task.id for task in env.tasks(split)} for split in ("all", "train", "test"))
    assert len(whole) == 800 and train | test == whole and not train & test and len(test) == 200
    numbers = [{name.rpartition("_")[2] for name in part} for part in (train, test)]
    assert not numbers[0] & numbers[1], "a story of the test split is in no category of the other"
    first = load_host(("agentrl_bfcl.plugin",)).factory("suites", "bfcl-long-context")()
    assert len(first.tasks) == 200 and first.tasks[0].id == "multi_turn_long_context_0"
    assert len(first.hash) == 16


def test_a_function_that_comes_late_is_offered_and_shown_with_its_turn(installed: None) -> None:
    async def play() -> None:
        env = world(category="miss_func")
        (task,) = [task for task in env.tasks("all") if task.id == "multi_turn_miss_func_3"]
        await env.reset(task)
        assert not {"find", "ls"} & {tool.name for tool in env.tools()}
        unknown = await env.step(call("fnd", path=".", name="test"))
        assert unknown.policy_error.startswith("no tool is called 'fnd'.") and "find" not in unknown.policy_error
        shown = (await env.step(say("I cannot find files."))).observation.messages[0]
        assert shown.role == "user" and '"name": "find"' in shown.content and '"name": "ls"' in shown.content
        assert {"find", "ls"} <= {tool.name for tool in env.tools()}
        found = await env.step(call("find", path=".", name="test"))
        assert "test_document.txt" in found.observation.messages[0].content and not found.policy_error
        await env.close()

    asyncio.run(play())


def test_episodes_of_one_task_share_nothing(installed: None) -> None:
    async def play() -> None:
        one, other = world(), world()
        task = named("multi_turn_base_3")
        first, second = await one.reset(task), await other.reset(task)
        assert first == second
        await one.step(call("mkdir", dir_name="mine"))
        mine, theirs = await one.step(call("ls")), await other.step(call("ls"))
        assert "mine" in mine.observation.messages[0].content
        assert "mine" not in theirs.observation.messages[0].content
        await one.close()
        again = world()
        assert await again.reset(task) == first
        assert "mine" not in (await again.step(call("ls"))).observation.messages[0].content
        await again.close()
        await other.close()

    asyncio.run(play())


def test_turns_pay_until_one_is_wrong_and_a_win_pays_one(installed: None) -> None:
    async def rewards(skipped: int | None) -> list[float]:
        env = world(shaped=True)
        task = named("multi_turn_base_0")
        await env.reset(task)
        turn, got = 0, []
        for action in list(env.oracle(task)):
            ends = not action.tool_calls
            if ends or turn != skipped:
                result = await env.step(action)
                got += [result.reward] if ends else []
            turn += ends
        await env.close()
        assert result.terminated and result.scores["success"] == (skipped is None)
        return got

    async def both() -> tuple[list[float], list[float]]:
        return await rewards(None), await rewards(2)

    won, lost = asyncio.run(both())
    assert len(won) == 4 and won[:3] == [0.125] * 3 and math.isclose(sum(won), 1.0)
    assert lost == [0.125, 0.125, 0.0, 0.0]


def test_mistakes_are_told_and_too_many_calls_end_the_episode(installed: None) -> None:
    async def play() -> None:
        env = world(steps_per_turn=2)
        await env.reset(named("multi_turn_base_3"))
        wrong = await env.step(call("ls", depth=3))
        assert wrong.policy_error.startswith("Error during execution:") and not wrong.truncated
        refused = await env.step(call("cd", folder="nowhere"))
        assert "No such file" in refused.observation.messages[0].content and not refused.policy_error
        late = await env.step(call("ls"))
        assert late.truncated and late.reward == 0.0 and late.scores == {"success": 0.0, "turns": 0.0}
        with pytest.raises(EnvironmentFault, match="has no task 'multi_turn_base_200'"):
            await env.reset(named("multi_turn_base_200"))
        await env.close()

    asyncio.run(play())


def test_wrong_options_are_refused_in_words(installed: None) -> None:
    with pytest.raises(ConfigError, match="category"):
        world(category="bass")
    with pytest.raises(ConfigError, match="steps_per_turn is 0"):
        world(steps_per_turn=0)
    with pytest.raises(EnvironmentFault, match="no split 'dev'"):
        list(islice(world().tasks("dev"), 1))


def test_the_shipped_check_finds_it_sound(installed: None) -> None:
    report = check_environment(WORLD.factory(NAME), tasks=3)
    assert report.ok, str(report)
