"""Both directions with the real package: their client plays our environment, ours plays their servers."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

pytest.importorskip("openenv", reason="openenv-core is not installed (pip install 'agentrl-openenv[openenv]')")

from agentrl_openenv.hosting import Hosted
from agentrl_openenv.launch import Program
from agentrl_openenv.server import Limits, listen, make_app, running
from agentrl_openenv.tasks import FIRST_TEST_SEED
from agentrl_openenv.world import OpenEnvWorld, Reading, Waits
from keydoor.env import KeyDoor
from openenv.core import GenericEnvClient, MCPToolClient

from agentrl import Action, Env, EnvironmentFault, Task, ToolCall, call, say, tool
from agentrl.environment import adapt
from agentrl.errors import ConfigError
from agentrl.plugins import load_host

Serve = Callable[[Any], AbstractAsyncContextManager[str]]


@pytest.fixture
async def rooms() -> AsyncIterator[tuple[str, Hosted]]:
    """keydoor as an OpenEnv server."""
    hosted = Hosted("keydoor", KeyDoor)
    with listen("127.0.0.1", 0) as listening:
        async with running(hosted, Limits(sessions=4), listening):
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", hosted
    assert not hosted.live


def line(task: Task) -> Iterator[Action]:
    """The oracle's line, by a copy of the world that is not served."""
    near = KeyDoor()
    near.reset(task)
    for action in near.oracle(task):
        yield action
        for made in action.tool_calls:
            getattr(near, made.name)(**made.arguments)


async def until(true: Callable[[], bool], seconds: float = 60.0) -> bool:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.01)
    return True


async def test_their_client_wins_our_environment_with_the_oracle(rooms: tuple[str, Hosted]) -> None:
    url, hosted = rooms
    async with GenericEnvClient(url) as client:
        for seed, split in ((3, "train"), (FIRST_TEST_SEED + 3, "test")):
            begun = await client.reset(seed=seed)
            task = hosted.task(seed, None, None)
            near = await adapt(KeyDoor()).reset(task)
            assert begun.observation["result"] == near.messages[-1].content
            assert (begun.reward, begun.done) == (None, False)
            listed = (await client.step({"type": "list_tools"})).observation["tools"]
            assert [entry["name"] for entry in listed] == ["go", "take", "open"]
            rewards = []
            for action in line(task):
                (made,) = action.tool_calls
                result = await client.step({"tool_name": made.name, "arguments": dict(made.arguments)})
                rewards.append(result.reward)
            assert result.done and result.observation["scores"]["success"] == 1.0
            assert (rewards[-1], set(rewards[:-1])) == (1.0, {0.0})
            state = await client.state()
            assert (state["task"], state["split"], state["step_count"]) == (task.id, split, len(rewards))
            with pytest.raises(RuntimeError, match="the episode is over"):
                await client.step({"tool_name": "take"})


async def test_their_tool_client_lists_and_calls_our_tools(rooms: tuple[str, Hosted]) -> None:
    url, hosted = rooms
    near = KeyDoor()
    near.reset(hosted.task(1, None, None))
    async with MCPToolClient(url) as client:
        tools = {entry.name: entry for entry in await client.list_tools()}
        assert tools["go"].input_schema["properties"]["direction"]["enum"] == ["north", "east", "south", "west"]
        await client.reset(seed=1)
        assert await client.call_tool("go", direction="east") == near.go(direction="east")
        with pytest.raises(RuntimeError, match="no tool is called 'fly'"):
            await client.call_tool("fly")
        with pytest.raises(RuntimeError, match="direction"):
            await client.call_tool("go", direction="up")


async def test_sessions_are_instances_of_their_own_and_close_with_them(rooms: tuple[str, Hosted]) -> None:
    url, hosted = rooms
    task = hosted.task(5, None, None)
    moves = list(line(task))
    async with GenericEnvClient(url) as moving, GenericEnvClient(url) as waiting:
        first = await moving.reset(task=task.id)
        assert (await waiting.reset(task=task.id)).observation == first.observation
        assert len(hosted.live) == 2
        for action in moves[:2]:
            made = action.tool_calls[0]
            await moving.step({"tool_name": made.name, "arguments": dict(made.arguments)})
        assert (await waiting.reset(task=task.id)).observation == first.observation
    assert await until(lambda: not hosted.live)


async def test_eight_of_their_clients_win_tasks_of_their_own_at_once(serve: Serve) -> None:
    hosted = Hosted("keydoor", KeyDoor)

    async def won(url: str, seed: int) -> tuple[str, float, float]:
        async with GenericEnvClient(url) as client:
            await client.reset(seed=seed)
            for action in line(hosted.task(seed, None, None)):
                made = action.tool_calls[0]
                result = await client.step({"tool_name": made.name, "arguments": dict(made.arguments)})
            return (await client.state())["task"], result.reward, result.observation["scores"]["success"]

    async with serve(make_app(hosted, Limits(sessions=8))) as url:
        ended = await asyncio.gather(*(won(url, seed) for seed in range(8)))
        assert ended == [(hosted.task(seed, None, None).id, 1.0, 1.0) for seed in range(8)]
        assert await until(lambda: not hosted.live)
    await hosted.close()


async def test_an_episode_over_the_wire_is_the_episode_here(serve: Serve) -> None:
    patient = functools.partial(KeyDoor, horizon=32)
    hosted = Hosted("keydoor", patient)
    async with serve(make_app(hosted, Limits())) as url:
        far, author = OpenEnvWorld(url=url), patient()
        near = adapt(author)
        told = next(iter(far.tasks("test")))
        task = hosted.task(told.seed, None, None)
        assert task.split == "test"
        assert await far.reset(told) == await near.reset(task)
        assert list(far.tools()) == list(near.tools())
        twice = Action(tool_calls=(ToolCall("take", {}, "c1"), ToolCall("take", {}, "c2")))
        for action in chain([call("fly"), call("go", direction="up"), say("hello"), twice], author.oracle(task)):
            there, here = await far.step(action), await near.step(action)
            assert there == here
        assert here.terminated and here.reward == 1.0
        with pytest.raises(EnvironmentFault, match="the episode is over"):
            await far.step(call("take"))
        await far.close()
        await near.close()
        assert await until(lambda: not hosted.live)
    await hosted.close()


async def test_a_hosted_limit_is_a_truncation_here(rooms: tuple[str, Hosted]) -> None:
    far = OpenEnvWorld(url=rooms[0])
    try:
        await far.reset(next(iter(far.tasks("train"))))
        for _ in range(16):
            result = await far.step(say("no"))
        assert result.truncated and not result.terminated and result.scores["success"] == 0.0
        short = OpenEnvWorld(url=rooms[0], max_steps=1)
        await short.reset(next(iter(short.tasks("train"))))
        cut = await short.step(say("no"))
        assert cut.truncated and cut.scores == {"success": 0.0}
        await short.close()
    finally:
        await far.close()


async def test_tasks_are_named_by_seed_or_id_and_come_round() -> None:
    class Few(Env):
        def tasks(self, split: str) -> Iterator[Task]:
            yield from (Task(f"{split}-{number}", "few") for number in range(3 if split == "train" else 0))

        def reset(self, task: Task) -> str:
            return task.id

    hosted = Hosted("few", Few)
    assert [hosted.task(seed, None, None).id for seed in (None, 0, 2, 3, 10_001)] == [
        "train-0", "train-0", "train-2", "train-0", "train-1",
    ]  # fmt: skip
    assert hosted.task(7, None, "train-1").id == "train-1"
    for asked, words in (((0, "test", None), "no tasks of the split 'test'"), ((0, None, "train-9"), "Did you mean"),
                         ((0, "dev", None), "no split 'dev'")):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            hosted.task(*asked)


async def test_a_fault_of_a_hosted_environment_is_a_fault_here(serve: Serve) -> None:
    class Faulty(Env):
        runs_in = "loop"

        def tasks(self, split: str) -> Iterator[Task]:
            yield Task(f"{split}-0", "faulty")

        def reset(self, task: Task) -> str:
            return "go"

        @tool
        def fall(self) -> str:
            """Fall."""
            raise RuntimeError("the floor is gone")

    hosted = Hosted("faulty", Faulty)
    async with serve(make_app(hosted, Limits())) as url:
        world = OpenEnvWorld(url=url)
        await world.reset(next(iter(world.tasks("train"))))
        with pytest.raises(EnvironmentFault, match=r"Faulty.fall raised RuntimeError: the floor is gone at .*\.py:\d+"):
            await world.step(call("fall"))
        with pytest.raises(EnvironmentFault, match="was lost before"):
            await world.step(call("fall"))
        await world.close()
    await hosted.close()


@pytest.mark.parametrize(
    ("headers", "code"),
    [({}, 200), ({"origin": "http://evil.example"}, 403), ({"host": "evil.example"}, 403)],
)
async def test_pages_of_others_are_refused(rooms: tuple[str, Hosted], headers: dict[str, str], code: int) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(f"{rooms[0]}/health", headers=headers)).status_code == code
        about = await http.get(f"{rooms[0]}/metadata")
        assert about.json()["description"] == "Find the key, take it, go to the door, open it."


async def test_single_requests_leave_no_world(rooms: tuple[str, Hosted]) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
        begun = await http.post(f"{rooms[0]}/reset", json={"seed": 2})
        assert begun.json()["observation"]["messages"][-1]["role"] == "user"
    assert await until(lambda: not rooms[1].live)


async def test_a_session_that_nothing_is_asked_of_is_closed() -> None:
    hosted = Hosted("keydoor", KeyDoor)
    with listen("127.0.0.1", 0) as listening:
        async with running(hosted, Limits(sessions=1, idle=0.05), listening):
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            async with GenericEnvClient(url) as client:
                await client.reset(seed=1)
                # openenv-core's reaper looks every five seconds.
                assert await until(lambda: not hosted.live)
                with pytest.raises(RuntimeError, match="nothing was asked of it"):
                    await client.step({"tool_name": "take"})


async def test_their_guessing_game_is_won_and_its_rewards_are_ours(theirs: ModuleType, serve: Serve) -> None:
    async with serve(theirs.guess_app) as url:
        world = OpenEnvWorld(url=url, prompt="Guess.", reading=Reading(speech="number", mistakes=("not allowed",)))
        task = Task("t", "openenv", 7, {"reset": {"seed": 7}})
        begun = await world.reset(task)
        assert begun.messages[0].content == f"Guess.\n\nhint: a number from 0 to {theirs.TOP}\ntries: 0"
        (act,) = world.tools()
        assert (act.name, act.description) == ("act", "Guess the number.")
        assert act.parameters["properties"] == {
            "number": {"type": "integer", "maximum": 1000, "description": "your guess"}
        }
        wrong = await world.step(call("act", number=3))
        assert (wrong.reward, wrong.observation.messages[0].content) == (-0.1, "hint: higher\ntries: 1")
        for refused, words in (
            (call("act", number="three"), "number: Input should be a valid integer"),
            (call("act", nomber=3), "number: Field required"),
            (call("act", number=-1), "negative numbers are not allowed"),
            (call("guess", number=3), "no tool is called 'guess'"),
            (say("I do not know"), "valid integer"),
        ):
            result = await world.step(refused)
            assert words in result.policy_error and words in result.observation.messages[0].content
            assert (result.reward, result.terminated) == (0.0, False)
        spoken = await world.step(say("5"))
        assert spoken.observation.messages[0].role == "user" and spoken.reward == -0.1
        both = await world.step(Action(tool_calls=(ToolCall("act", {"number": 6}), ToolCall("act", {"number": 7}))))
        assert both.terminated and both.reward == pytest.approx(0.9) and both.scores["success"] == 1.0
        assert both.scores["return"] == pytest.approx(0.7)
        await world.close()


async def test_silence_loses_and_what_a_server_raises_is_a_fault(theirs: ModuleType, serve: Serve) -> None:
    async with serve(theirs.guess_app) as url:
        world = OpenEnvWorld(url=url, waits=Waits(answer=1.0))
        task = next(iter(world.tasks("train")))
        await world.reset(task)
        silent = await world.step(say(""))
        assert silent.terminated and silent.scores["success"] == 0.0
        await world.reset(task)
        with pytest.raises(EnvironmentFault, match="it raised: negative numbers"):
            await world.step(call("act", number=-1))
        await world.reset(task)
        with pytest.raises(EnvironmentFault, match="did not answer a step within 1 s"):
            await world.step(call("act", number=600))
        await world.close()


async def test_their_tool_server_is_won_by_its_tools(theirs: ModuleType, serve: Serve) -> None:
    async with serve(theirs.vault_app) as url:
        world = OpenEnvWorld(url=url, prompt="Open the door.")
        begun = await world.reset(Task("t", "openenv", 5, {"reset": {"seed": 5}}))
        assert [message.content for message in begun.messages] == ["Open the door."]
        assert {entry.name: sorted(entry.parameters["properties"]) for entry in world.tools()} == {
            "read_note": [],
            "open_door": ["code"],
        }
        note = await world.step(call("read_note"))
        assert note.observation.messages[0].content == "The code is 105." and note.reward == 0.0
        refused = await world.step(call("open_door", code=-1))
        assert "a code is not negative" in refused.policy_error and not refused.terminated
        shut = await world.step(call("open_door", code=1))
        assert "false" in shut.observation.messages[0].content and not shut.terminated
        won = await world.step(call("open_door", code=105))
        assert won.terminated and won.reward == 1.0 and won.scores["success"] == 1.0
        await world.close()


async def test_a_full_server_is_waited_for_and_named_when_it_stays_full(theirs: ModuleType, serve: Serve) -> None:
    async with serve(theirs.guess_app) as url:
        worlds = [OpenEnvWorld(url=url) for _ in range(3)]
        task = next(iter(worlds[0].tasks("train")))
        for world in worlds[:2]:
            await world.reset(task)
        late = asyncio.create_task(worlds[2].reset(task))
        hopeless = OpenEnvWorld(url=url, waits=Waits(session=0.3))
        with pytest.raises(EnvironmentFault, match=r"no session was free within 0.3 s .* fewer episodes at once"):
            await hopeless.reset(task)
        assert not late.done()
        await worlds[0].close()
        assert (await late).messages
        for world in [*worlds, hopeless]:
            await world.close()


async def test_a_server_that_is_not_there_is_a_fault_with_its_address() -> None:
    world = OpenEnvWorld(url="http://127.0.0.1:9", waits=Waits(answer=2.0))
    with pytest.raises(EnvironmentFault, match=r"http://127\.0\.0\.1:9 is no OpenEnv server"):
        await world.reset(next(iter(world.tasks("train"))))
    await world.close()


async def test_a_server_started_here_that_dies_in_a_call_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one test that starts openenv-core's server as its author would."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    world = OpenEnvWorld(start=Program("their_servers:guess_app"))
    task = next(iter(world.tasks("train")))
    try:
        await world.reset(task)
        won = await world.step(call("act", number=0))
        assert won.terminated and won.reward == 1.0
        await world.reset(task)
        with pytest.raises(EnvironmentFault, match="ended with exit code 3 in an episode"):
            await world.step(call("act", number=666))
    finally:
        await world.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "one of url and start"),
        ({"url": "http://127.0.0.1:1", "start": {"app": "a:b"}}, "one of url and start"),
        ({"start": {"app": "a:b", "command": ["server", "{port}"]}}, "one of them starts the server"),
        ({"start": {"command": ["python", "-m", "server"]}}, r"no \{port\}"),
        ({"start": {"ap": "a:b"}}, r"Did you mean 'app'\?"),
        ({"url": "http://127.0.0.1:1", "tasks": "nowhere.jsonl"}, "'nowhere.jsonl', which is no file"),
    ],
)
def test_bad_options_are_refused_in_words(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_host().create("environments", "openenv", options)
