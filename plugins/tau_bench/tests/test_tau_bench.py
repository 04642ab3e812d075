"""tau-bench retail through our adapter: on a tiny checkout of the tests, and on a real one where its path is given."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from agentrl_tau_bench.books import Books
from agentrl_tau_bench.checkout import VARIABLE, open_checkout
from agentrl_tau_bench.customer import STOPS, ScriptedCustomer
from agentrl_tau_bench.world import TauRetail

from agentrl import Action, StepResult, Task, call, say
from agentrl.environment import adapt
from agentrl.errors import EnvironmentFault, InfrastructureFault
from agentrl.plugins import load_host
from agentrl.remote.environment import RemoteEnvironment
from agentrl.testing import assert_environment


def _beside(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = _beside("tiny_shop").write(tmp_path_factory.mktemp("tau"))
    return folder


def task_of(shop: Path, number: int = 0, split: str = "test") -> Task:
    return list(TauRetail(data=str(shop)).tasks(split))[number]


async def play(world: Any, task: Task, actions: list[Action]) -> list[StepResult]:
    await world.reset(task)
    results = [await world.step(action) for action in actions]
    await world.close()
    return results


def test_a_checkout_is_read_without_its_client_and_leaves_no_module_behind(shop: Path) -> None:
    checkout = open_checkout(str(shop))
    assert [spec.name for spec in checkout.specs] == ["show_order", "cancel", "compute", "transfer_to_human_agents"]
    assert checkout.policy == "Serve the user.\n"
    assert checkout.tasks("train")[0].outputs == ("1200",)
    assert checkout.part_of_user("Be Ann.") == "You play a user. Instruction: Be Ann."
    assert not [name for name in sys.modules if name.partition(".")[0] in ("tau_bench", "litellm")]


def test_the_tasks_are_those_of_the_splits(shop: Path) -> None:
    world = TauRetail(data=str(shop))
    assert [task.id for task in world.tasks("dev")] == ["tau_retail-dev-0", "tau_retail-dev-1"]
    with pytest.raises(ValueError, match="no split 'all'; tau-bench retail has train, test, dev"):
        list(world.tasks("all"))
    json.dumps([task.data for task in world.tasks("test")])


async def test_only_the_right_database_with_what_had_to_be_told_wins(shop: Path) -> None:
    task = task_of(shop)
    truth = list(TauRetail(data=str(shop)).oracle(task))
    cancel = call("cancel", order_id="#3")
    lines: list[tuple[list[Action], tuple[float, float, float]]] = [
        (truth, (1.0, 1.0, 1.0)),
        ([cancel, say("You get 1,200.00 back.")], (1.0, 1.0, 1.0)),
        ([cancel, say("Is 1200 fine?"), say("Bye.")], (1.0, 1.0, 1.0)),
        ([cancel, say("Done.")], (0.0, 1.0, 0.0)),
        ([say("It is 1200.")], (0.0, 0.0, 1.0)),
        ([cancel, cancel, say("1200")], (0.0, 0.0, 1.0)),
        ([call("cancel", order_id="#2"), say("1200")], (0.0, 0.0, 1.0)),
        ([say("")], (0.0, 0.0, 0.0)),
    ]
    for actions, (success, state, told) in lines:
        results = await play(TauRetail(data=str(shop)), task, actions)
        last = results[-1]
        assert last.terminated and last.scores == {"success": success, "state": state, "told": told}, actions
        assert [result.reward for result in results] == [0.0] * (len(results) - 1) + [success]


async def test_a_hand_over_ends_the_episode_and_is_graded(shop: Path) -> None:
    task = task_of(shop, 1)
    done = [call("cancel", order_id="#4"), call("transfer_to_human_agents", summary="angry")]
    assert (await play(TauRetail(data=str(shop)), task, done))[-1].reward == 1.0
    early = (await play(TauRetail(data=str(shop)), task, done[1:]))[-1]
    assert early.terminated and early.reward == 0.0


async def test_mistakes_are_told_and_the_limit_grades(shop: Path) -> None:
    world = TauRetail(data=str(shop), max_steps=4)
    actions = [
        call("cancle", order_id="#3"),
        call("cancel"),
        call("cancel", order_id="#9"),
        call("cancel", order_id="#3"),
    ]
    unknown, missing, refused, last = await play(world, task_of(shop), actions)
    assert unknown.policy_error.startswith("no tool is called 'cancle'. Did you mean 'cancel'?")
    assert missing.policy_error.startswith("Error: ") and "order_id" in missing.policy_error
    assert refused.observation.messages[0].content == "Error: order not found" and not refused.policy_error
    assert last.truncated and last.scores == {"success": 0.0, "state": 1.0, "told": 0.0}


def test_differences_are_told_from_equal_values_of_another_type(shop: Path) -> None:
    books, other = (Books(open_checkout(str(shop))) for _ in range(2))
    assert books.changes() == {}
    books.call("cancel", {"order_id": "#1"})
    assert set(books.changes()) == {"orders/#1", "users/ann"}
    other.put_back(books.changes())
    assert other.changes() == books.changes()
    other.put_back({"users/ann": '{"balance":5.0}', "orders/#2": ""})
    assert other.changes() == {"users/ann": '{"balance":5.0}', "orders/#2": ""}, "5.0 is another text than 5"


async def test_the_scripted_user_agrees_and_leaves_when_nothing_is_asked() -> None:
    user = ScriptedCustomer("You are Ann.")
    assert "You are Ann." in await user.opening()
    assert await user.reply((), "Shall I cancel it?") == "Yes, please. I have told you all that I know."
    assert await user.reply((), "Please confirm the refund.") is not None
    assert await user.reply((), "It is done.") is None
    assert await user.reply((("?", "Yes."),) * 10, "And now?") is None


async def test_it_runs_in_a_process_where_a_call_that_hangs_is_ended_and_named(shop: Path) -> None:
    world = adapt(TauRetail(data=str(shop)))
    assert isinstance(world, RemoteEnvironment)
    task = task_of(shop)
    results = await play(world, task, list(TauRetail(data=str(shop)).oracle(task)))
    assert results[-1].reward == 1.0
    slow = adapt(TauRetail(data=str(shop)))
    slow.step_deadline = 1.0  # type: ignore[attr-defined]
    await slow.reset(task)
    with pytest.raises(EnvironmentFault, match=r"did not come back within 1 s"):
        await slow.step(call("compute", expression="9**9**9"))
    await slow.close()


def test_the_shipped_check_finds_it_sound(shop: Path) -> None:
    assert_environment(functools.partial(TauRetail, data=str(shop)), tasks=4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "has no data.*TAU_BENCH_DATA"),
        ({"data": "nowhere"}, "finds no tau_bench/envs/retail/wiki.md in .*nowhere"),
        ({"user_url": "http://localhost/v1"}, "needs both"),
    ],
)
def test_wrong_options_are_refused_in_words(
    options: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ValueError, match=words):
        TauRetail(**options)  # type: ignore[arg-type]


def test_a_broken_checkout_names_the_file(tmp_path: Path) -> None:
    folder = _beside("tiny_shop").write(tmp_path)
    (folder / "tau_bench" / "envs" / "retail" / "tools" / "__init__.py").write_text("def broken(:\n")
    with pytest.raises(ValueError, match=r"cannot read ALL_TOOLS of tau_bench.envs.retail.tools in .*SyntaxError"):
        TauRetail(data=str(folder))


async def test_a_model_plays_the_user_over_http(shop: Path) -> None:
    replies = ["I want my order cancelled.", "Yes.", f"Thanks. {STOPS}"]
    asked: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        asked.append(json.loads(await reader.readexactly(int(re.findall(r"content-length: (\d+)", head)[0]))))
        body = json.dumps({"choices": [{"message": {"content": replies[len(asked) - 1]}}]}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    world = TauRetail(data=str(shop), user_url=url, user_model="someone")
    async with server:
        lines = [say("Shall I cancel #3?"), call("cancel", order_id="#3"), say("You get 1200.")]
        results = await play(world, task_of(shop), lines)
    assert results[0].observation.messages[0].content == "Yes."
    assert results[-1].terminated and results[-1].reward == 1.0
    assert asked[0]["messages"][0]["content"].startswith("You play a user. Instruction: You are Ann.")
    assert [message["role"] for message in asked[2]["messages"]] == [
        *("system", "user", "assistant", "user", "assistant", "user")
    ]
    gone = TauRetail(data=str(shop), user_url=url, user_model="someone")
    with pytest.raises(InfrastructureFault, match="Is the server running"):
        await gone.reset(task_of(shop))
    await gone.close()


def test_the_suite_is_the_test_split(shop: Path) -> None:
    made = load_host(("agentrl_tau_bench.plugin",)).factory("suites", "tau-retail")(data=str(shop))
    assert [task.id for task in made.tasks] == ["tau_retail-test-0", "tau_retail-test-1"]


@pytest.mark.slow
@pytest.mark.parametrize("split", ["test", "dev", "train"])
async def test_the_ground_truths_of_a_real_checkout_win(split: str) -> None:
    if not os.environ.get(VARIABLE):
        pytest.skip(f"{VARIABLE} names no checkout of tau-bench")
    world = TauRetail()
    lost = []
    for task in world.tasks(split):
        await world.reset(task)
        results = [await world.step(action) for action in list(world.oracle(task))]
        lost += [] if results[-1].terminated and results[-1].reward == 1.0 else [task.id]
    assert not lost
