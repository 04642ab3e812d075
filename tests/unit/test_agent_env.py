"""An agent with its own loop as an environment: its requests become steps, and its verdict the reward."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable

import httpx
import numpy as np
import openai
import pytest
from agents_served import TASK, TOOL, Scripted, ask, engine_of, played, reply, rollout_of
from fakes_rollout import Engine

from agentrl import AgentEnv, Ending, Task
from agentrl.batch import build_batch
from agentrl.protocols import GenerateRequest
from agentrl.types import Group, Status, Trajectory


def paths(trajectory: Trajectory, engine: Engine) -> None:
    """What was recorded is what the engine was given and returned."""
    assert len(engine.requests) == len(trajectory.steps)
    for step, request, sampled in zip(trajectory.steps, engine.requests, engine.completions, strict=True):
        whole = trajectory.tokens_through(step)
        assert whole.tolist() == [*request.tokens.tolist(), *sampled.tolist()]


async def test_a_conversation_becomes_steps_that_extend_one_another_token_for_token() -> None:
    async def agent(task: Task, url: str) -> float:
        client = openai.AsyncOpenAI(base_url=url, api_key="none")
        said = [{"role": "user", "content": f"task {task.id}"}]
        for words in ("again", "once more"):
            answer = await client.chat.completions.create(model="any", messages=said)  # type: ignore[call-overload]
            said += [answer.choices[0].message, {"role": "user", "content": words}]
        last = await client.chat.completions.create(model="any", messages=said)  # type: ignore[call-overload]
        await client.close()
        assert (last.choices[0].message.content, last.choices[0].finish_reason) == ("three", "stop")
        assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (len(engine.requests[2].tokens), 6)
        return 0.5

    engine = engine_of(" one ", "two", "three")
    trajectory = await played(agent, engine)
    assert (trajectory.status, trajectory.reward, trajectory.success) == (Status.OK, 0.5, True)
    assert [step.context for step in trajectory.steps] == [None, "t-0.0", "t-0.1"]
    assert trajectory.forks == 0
    assert [step.observation.messages[0].content for step in trajectory.steps] == ["task t", "again", "once more"]
    paths(trajectory, engine)


async def test_a_changed_history_is_a_new_context_and_is_counted() -> None:
    async def agent(task: Task, url: str) -> float:
        first = await ask(url, "a")
        changed = {**reply(first), "content": "something else"}
        await ask(url, "a", changed, "b")
        return 0.0

    engine = engine_of("x", "y")
    trajectory = await played(agent, engine)
    assert [step.context for step in trajectory.steps] == [None, None] and trajectory.forks == 1
    assert [m.content for m in trajectory.steps[1].observation.messages] == ["a", "something else", "b"]
    paths(trajectory, engine)


async def test_a_client_that_goes_back_branches_from_the_recorded_tokens() -> None:
    async def agent(task: Task, url: str) -> float:
        one = await ask(url, "a")
        await ask(url, "a", reply(one), "b")
        await ask(url, "a", reply(one), "c")
        await ask(url, "other conversation")
        await ask(url, "a", reply(one), "c")
        return 1.0

    engine = engine_of("one", "two", "three", "four", "five")
    trajectory = await played(agent, engine)
    assert [step.context for step in trajectory.steps] == [None, "t-0.0", "t-0.0", None, "t-0.0"]
    paths(trajectory, engine)
    batch = build_batch([Group("t", TASK, (trajectory,))])
    trained = np.concatenate([context.column[context.column >= 0] for context in batch.contexts])
    assert sorted(trained.tolist()) == list(range(len(batch.columns)))
    assert len(batch.columns) == sum(len(step.tokens) for step in trajectory.steps)


async def test_several_answers_to_one_request_are_steps_side_by_side() -> None:
    async def agent(task: Task, url: str) -> float:
        both = await ask(url, "a", n=2)
        assert [choice["message"]["content"] for choice in both["choices"]] == ["x", "y"]
        await ask(url, "a", reply(both, 0), "b")
        return 1.0

    engine = engine_of("x", "y", "z")
    trajectory = await played(agent, engine)
    assert [step.context for step in trajectory.steps] == [None, None, "t-0.0"]
    assert engine.requests[0].tokens.tolist() == engine.requests[1].tokens.tolist()
    paths(trajectory, engine)


async def test_calls_come_with_ids_and_their_answers_are_named() -> None:
    async def agent(task: Task, url: str) -> float:
        first = await ask(url, "a", tools=[TOOL])
        choice = first["choices"][0]
        assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
        (call,) = choice["message"]["tool_calls"]
        assert call["function"] == {"name": "add", "arguments": "{}"}
        answer = {"role": "tool", "tool_call_id": call["id"], "content": "3"}
        words = await ask(url, "a", reply(first), answer, tools=[TOOL], tool_choice="none")
        assert words["choices"][0]["message"] == {"role": "assistant", "content": "@add", "refusal": None}
        return 1.0

    engine = engine_of("@add", "@add")
    trajectory = await played(agent, engine)
    assert [step.context for step in trajectory.steps] == [None, "t-0.0"]
    (shown,) = trajectory.steps[1].observation.messages
    assert (shown.role, shown.name, shown.content) == ("tool", "add", "3")


async def test_a_stop_string_cuts_the_record_where_it_cuts_the_answer() -> None:
    async def agent(task: Task, url: str) -> float:
        first = await ask(url, "a", stop=["cd"], logprobs=True)
        choice = first["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("ab", "stop")
        assert [one["token"] for one in choice["logprobs"]["content"]] == list("abcd")
        await ask(url, "a", reply(first), "b", max_tokens=2)
        return 1.0

    engine = engine_of("abcdef", "ghijk")
    trajectory = await played(agent, engine)
    assert [len(step.tokens) for step in trajectory.steps] == [4, 2]
    assert trajectory.steps[1].context == "t-0.0"
    assert engine.requests[1].sampling.max_tokens == 2
    assert trajectory.steps[1].error.startswith("Your answer was cut off")


async def test_rewards_of_steps_reach_the_steps_and_scores_the_last() -> None:
    async def agent(task: Task, url: str) -> Ending:
        for words in "abc":
            await ask(url, words)
        return Ending(1.0, (0.25, 0.0, 0.5), {"success": 0.0})

    trajectory = await played(agent, engine_of("x", "y", "z"))
    assert [step.reward for step in trajectory.steps] == [0.25, 0.0, 1.5]
    assert not trajectory.success and trajectory.steps[-1].scores["success"] == 0.0


@pytest.mark.parametrize("verdict", [None, "much", float("nan"), Ending(1.0, (1.0, 1.0))])
async def test_a_verdict_that_is_none_is_a_fault(verdict: object) -> None:
    async def agent(task: Task, url: str) -> object:
        await ask(url, "a")
        return verdict

    trajectory = await played(agent, engine_of("x"))
    assert trajectory.status is Status.ENVIRONMENT_ERROR
    assert any(words in trajectory.error for words in ("is due", "finite number", "2 step rewards were given for 1"))


async def test_what_the_agent_raises_is_a_fault_with_its_place() -> None:
    async def agent(task: Task, url: str) -> float:
        await ask(url, "a")
        raise KeyError("lost")

    trajectory = await played(agent, engine_of("x"))
    assert trajectory.status is Status.ENVIRONMENT_ERROR
    assert "KeyError: 'lost'" in trajectory.error and "agents_served.py:" in trajectory.error
    assert "catch it in `play`" in trajectory.error


async def test_an_agent_that_asks_nothing_is_a_fault() -> None:
    async def agent(task: Task, url: str) -> float:
        return 1.0

    trajectory = await played(agent, engine_of())
    assert trajectory.status is Status.ENVIRONMENT_ERROR and "without asking" in trajectory.error


async def test_a_full_context_is_told_to_the_agent_and_its_verdict_is_taken() -> None:
    told: list[int] = []

    async def agent(task: Task, url: str) -> float:
        first = await ask(url, "a")
        long = await ask(url, "a", reply(first), "b" * 200)
        told.append(long.status_code)
        assert long.json()["error"]["code"] == "context_length_exceeded"
        return 0.25

    trajectory = await played(agent, engine_of("x"), max_context=100)
    assert told == [400]
    assert (trajectory.status, trajectory.reward, trajectory.success) == (Status.TRUNCATED, 0.25, False)


async def test_an_agent_that_fails_because_its_steps_are_used_up_has_failed_and_is_no_fault() -> None:
    async def agent(task: Task, url: str) -> float:
        while True:
            (await ask(url, "a"))["choices"]

    trajectory = await played(agent, Engine(), max_steps=3)
    assert (trajectory.status, trajectory.reward, len(trajectory.steps)) == (Status.TRUNCATED, 0.0, 3)
    assert not trajectory.success


async def test_an_agent_that_hangs_up_before_its_answer_is_given_the_same_one() -> None:
    async def agent(task: Task, url: str) -> float:
        asking = asyncio.ensure_future(ask(url, "a"))
        await sampling.wait()
        asking.cancel()
        await asyncio.wait({asking})
        again = await ask(url, "a")
        assert again["choices"][0]["message"]["content"] == "x"
        return 1.0

    sampling = asyncio.Event()

    def latency(request: GenerateRequest) -> float:
        sampling.set()
        return 0.05

    trajectory = await played(agent, Engine(lambda request: "x", latency))
    assert len(trajectory.steps) == 1 and trajectory.status is Status.OK


async def test_an_agent_that_is_silent_for_too_long_is_ended() -> None:
    left = asyncio.Event()

    async def agent(task: Task, url: str) -> float:
        world.patience = 0.01  # from its first answer on
        try:
            await ask(url, "a")
            await asyncio.Event().wait()
        finally:
            left.set()
        return 1.0

    world = Scripted(agent)
    async with rollout_of(lambda: world, engine_of("x")) as rollout:
        trajectory = await rollout.episode(TASK, 0)
    assert trajectory.status is Status.ENVIRONMENT_ERROR and "patience" in trajectory.error
    assert left.is_set()


async def test_the_last_agent_closes_the_port_and_the_next_one_opens_another() -> None:
    addresses: list[str] = []

    async def agent(task: Task, url: str) -> float:
        addresses.append(url.partition("/v1")[0])
        await ask(url, "a")
        return 1.0

    before = asyncio.all_tasks()
    for _ in range(2):
        trajectory = await played(agent, engine_of("x"))
        assert trajectory.status is Status.OK and asyncio.all_tasks() == before
        with pytest.raises(httpx.ConnectError):
            await ask(f"{addresses[-1]}/v1", "a")
    world = Scripted(agent)
    assert world.step_deadline == world.reset_deadline == world.patience == 120.0


async def test_a_plain_method_plays_in_a_thread() -> None:
    here = threading.get_ident()

    class Blocking(AgentEnv):
        def tasks(self, split: str) -> Iterable[Task]:
            return [TASK]

        def play(self, task: Task, base_url: str) -> float:
            assert threading.get_ident() != here
            with openai.OpenAI(base_url=base_url, api_key="none") as client:
                stream = client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": "a"}], stream=True,
                    stream_options={"include_usage": True},
                )  # fmt: skip
                pieces = list(stream)
            words = [piece.choices[0].delta.content for piece in pieces if piece.choices]
            assert "".join(word or "" for word in words) == "two words"
            assert pieces[-1].usage is not None and pieces[-1].usage.completion_tokens == 10
            return 1.0

    async with rollout_of(Blocking, engine_of("two words")) as rollout:
        trajectory = await rollout.episode(TASK, 0)
    assert (trajectory.status, trajectory.reward) == (Status.OK, 1.0)
