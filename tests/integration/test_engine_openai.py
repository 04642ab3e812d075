"""The OpenAI-compatible engine, end to end against a server on a real socket."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from json_server import Answer, Call, serve

from agentrl.engines.openai import OpenAIEngine, chat_messages
from agentrl.errors import ConfigError, InfrastructureFault, TrainingError
from agentrl.protocols import Engine, GenerateRequest, Usage
from agentrl.types import Finish, Message, SamplingParams, ToolCall, ToolSpec, token_ids

SAMPLING = SamplingParams(64, temperature=0.7, seed=5)
LOOKUP = ToolSpec("lookup", "Find a person.", {"type": "object", "properties": {"name": {"type": "string"}}})
ASK = [Message("system", "Be brief."), Message("user", "Who is Ada?")]


def completion(message: dict[str, Any], finish: str = "stop") -> Answer:
    usage = {"prompt_tokens": 21, "completion_tokens": 4, "total_tokens": 25}
    return Answer(
        body={"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage}
    )


def called(arguments: Any) -> dict[str, Any]:
    function = {"name": "lookup", "arguments": arguments}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "x1", "type": "function", "function": function}],
    }


async def test_an_episode_of_tool_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESK_KEY", "secret")

    async def model(call: Call) -> Answer:
        if len(server.calls) == 1:
            return completion(called('{"name": "Ada"}'))
        return completion({"role": "assistant", "content": "A mathematician.", "reasoning_content": "hm"}, "length")

    async with serve(model) as server:
        engine = OpenAIEngine(server.url + "/v1", "small-1", api_key_env="DESK_KEY")
        first = await engine.chat(ASK, [LOOKUP], SAMPLING)
        assert first.action.tool_calls == (ToolCall("lookup", {"name": "Ada"}, "x1"),)
        assert (first.action.text, first.finish, first.usage) == ("", Finish.STOP, Usage(21, 4))
        answered = [*ASK, first.action.message(), Message("tool", "born 1815", name="lookup", call_id="x1")]
        second = await engine.chat(answered, [LOOKUP], SAMPLING)
        assert (second.action.text, second.action.reasoning, second.finish) == ("A mathematician.", "hm", Finish.LENGTH)
        await engine.close()
    sent = server.calls[1]
    assert (sent.path, sent.headers["authorization"]) == ("/v1/chat/completions", "Bearer secret")
    assert (sent.body["model"], sent.body["max_tokens"], sent.body["temperature"], sent.body["seed"]) == (
        "small-1",
        64,
        0.7,
        5,
    )
    assert sent.body["tools"][0]["function"]["parameters"] == LOOKUP.parameters
    assert sent.body["messages"][2]["tool_calls"][0]["function"] == {"name": "lookup", "arguments": '{"name":"Ada"}'}
    assert sent.body["messages"][3] == {"role": "tool", "tool_call_id": "x1", "content": "born 1815"}


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_busy_server_is_asked_again(status: int) -> None:
    async def model(call: Call) -> Answer:
        if len(server.calls) < 3:
            return Answer(status, {"error": {"message": "later"}}, {"retry-after": "0.05"})
        return completion({"role": "assistant", "content": "yes"})

    async with serve(model) as server:
        engine = OpenAIEngine(server.url, "m")
        assert (await engine.chat(ASK, [], SAMPLING)).action.text == "yes"
        assert len(server.calls) == 3
        await engine.close()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [('{"name": "Ad', "not valid JSON"), ('["Ada"]', "not a JSON object"), ("Ada", "not valid JSON")],
)
async def test_malformed_arguments_are_the_models_mistake_and_are_not_repaired(arguments: str, reason: str) -> None:
    async def model(call: Call) -> Answer:
        return completion(called(arguments))

    async with serve(model) as server:
        engine = OpenAIEngine(server.url, "m")
        action = (await engine.chat(ASK, [LOOKUP], SAMPLING)).action
        assert action.tool_calls == ()
        assert reason in action.error and arguments in action.error and "lookup" in action.error
        await engine.close()


async def test_a_call_without_arguments_has_none() -> None:
    async def model(call: Call) -> Answer:
        return completion(called(""))

    async with serve(model) as server:
        engine = OpenAIEngine(server.url, "m")
        assert (await engine.chat(ASK, [LOOKUP], SAMPLING)).action.tool_calls[0].arguments == {}
        await engine.close()


async def test_a_server_that_does_not_answer_is_a_fault() -> None:
    async def model(call: Call) -> Answer:
        await asyncio.sleep(30)
        return Answer()

    async with serve(model) as server:
        engine = OpenAIEngine(server.url, "m", timeout=0.2)
        with pytest.raises(InfrastructureFault, match=r"did not answer within 0\.2 s"):
            await engine.chat(ASK, [], SAMPLING)
        await engine.close()


async def test_refusals_and_nonsense_are_faults_that_show_what_came() -> None:
    answers = [Answer(401, {"error": "bad key"}), Answer(body={"error": "no such model"}), Answer(body={"choices": []})]

    async def model(call: Call) -> Answer:
        return answers[len(server.calls) - 1]

    async with serve(model) as server:
        engine = OpenAIEngine(server.url, "m")
        for expected in ("401 .*bad key", "no such model", "chat completion"):
            with pytest.raises(InfrastructureFault, match=expected):
                await engine.chat(ASK, [], SAMPLING)
        await engine.close()


async def test_training_is_refused_with_what_to_use_instead() -> None:
    engine = OpenAIEngine("http://127.0.0.1:9", "m")
    as_engine: Engine = engine
    assert not as_engine.trainable
    with pytest.raises(TrainingError, match=r"no token ids .* vllm or the transformers engine"):
        await as_engine.generate(GenerateRequest(token_ids([1]), SAMPLING))
    with pytest.raises(TrainingError, match="cannot score"):
        await as_engine.score(token_ids([1]))
    health = await as_engine.health()
    assert not health.ok and "127.0.0.1:9/models failed" in health.detail
    await engine.close()


async def test_a_pause_holds_new_questions() -> None:
    async def model(call: Call) -> Answer:
        return completion({"role": "assistant", "content": "yes"})

    async with serve(model) as server:
        engine = OpenAIEngine(server.url, "m")
        await engine.pause()
        question = asyncio.create_task(engine.chat(ASK, [], SAMPLING))
        await asyncio.sleep(0.05)
        assert not server.calls
        await engine.resume()
        assert (await question).action.text == "yes"
        await engine.close()


def test_a_key_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DESK_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"\$DESK_KEY is not set"):
        OpenAIEngine("https://models.example/v1", "m", api_key_env="DESK_KEY")


def test_every_call_on_the_wire_has_an_id_and_an_answer() -> None:
    calls = (ToolCall("lookup", {"name": "Ada"}), ToolCall("lookup", {"name": "Bob"}), ToolCall("lookup", {}))
    wire = chat_messages(
        [
            Message("user", "go"),
            Message("assistant", "", calls),
            Message("tool", "one"),
            Message("tool", "two"),
            Message("user", "and?"),
            Message("assistant", "", calls[:1]),
        ]
    )
    names = [call["id"] for call in wire[1]["tool_calls"]]
    assert len(set(names)) == 3
    answers = [(m["tool_call_id"], m["content"]) for m in wire[2:5]]
    assert answers == [(names[0], "one"), (names[1], "two"), (names[2], "")]
    assert [m["role"] for m in wire[5:]] == ["user", "assistant", "tool"]
    assert wire[6]["tool_calls"][0]["id"] == wire[7]["tool_call_id"] not in names
