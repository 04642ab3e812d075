"""Requests in the very words of agent frameworks: what goes on from the recorded tokens, what is a new context, what
is refused.

As they were sent by openai-agents 0.24, pydantic-ai 2.68, langchain-openai 1.7 and smolagents 1.26.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes_rollout import Engine, Renderer
from served_desk import served

from agentrl.rollout.tokens import TokenPlayer
from agentrl.store.reader import FolderReader
from agentrl.types import Action, TokenIds, ToolCall, ToolSpec

ASKED = "What is 2 + 3?"
SPECS = {
    "strict": '{"type":"function","function":{"name":"add","description":"Add two numbers.","parameters":{"properties":'
    '{"a":{"title":"A","type":"integer"},"b":{"title":"B","type":"integer"}},"required":["a","b"],"title":"add_args",'
    '"type":"object","additionalProperties":false},"strict":true}}',
    "plain": '{"type":"function","function":{"name":"add","description":"Add two numbers.","parameters":{"properties":'
    '{"a":{"type":"integer"},"b":{"type":"integer"}},"required":["a","b"],"type":"object"}}}',
}
CALLS = (
    '[{"id":"call_0_0","type":"function","function":{"name":"add","arguments":"{\\"a\\":2,\\"b\\":3}"}},'
    '{"id":"call_0_1","type":"function","function":{"name":"add","arguments":"{\\"b\\":1.0,\\"a\\":2}"}}]'
)
SPACED = CALLS.replace(":2", ": 2").replace(":3", ": 3").replace(':1.0,\\"', ': 1.0, \\"').replace(',\\"b', ', \\"b')
RESULTS = (
    '{"role":"tool","tool_call_id":"call_0_0","content":"5"},{"role":"tool","tool_call_id":"call_0_1","content":"3"}'
)

FRAMEWORKS = {
    "openai-agents": (
        '{"content":"Use the tool.","role":"system"},{"role":"user","content":"What is 2 + 3?"}',
        '{"role":"assistant","content":"\\n\\nLet me add. \\n","tool_calls":' + CALLS + "}," + RESULTS,
        '"stream":true,"tools":[' + SPECS["strict"] + "]",
    ),
    "pydantic-ai": (
        '{"role":"system","content":"Use the tool."},{"role":"user","content":"What is 2 + 3?"}',
        '{"role":"assistant","reasoning_content":"I need the tool.","content":"\\n\\nLet me add. \\n","tool_calls":'
        + CALLS
        + "},"
        + RESULTS,
        '"stream":false,"tool_choice":"auto","stream_options":{"include_usage":true},"tools":[' + SPECS["strict"] + "]",
    ),
    "langgraph": (
        '{"content":"Use the tool.","role":"system"},{"content":"What is 2 + 3?","role":"user"}',
        '{"content":"Let me add.","role":"assistant","tool_calls":' + SPACED + "}," + RESULTS,
        '"stream":false,"tools":[' + SPECS["plain"] + "]",
    ),
}
"How the conversation begins, what is added to it after the first answer, and what stands beside it."


class Thinking(Renderer):
    """`@` is a thought, words and two calls."""

    def parse(self, tokens: TokenIds, tools: Sequence[ToolSpec]) -> Action:
        if self.decode(tokens) != "@":
            return super().parse(tokens, tools)
        calls = ToolCall("add", {"a": 2, "b": 3}), ToolCall("add", {"b": 1.0, "a": 2})
        return Action("\n\nLet me add. \n", calls, "I need the tool.")


async def played(folder: Path, *bodies: str) -> Any:
    """The trajectory of one session that asks this."""
    answers = iter(["@", "It is 5."])
    engine = Engine(lambda request: next(answers))
    async with served(folder, TokenPlayer(engine, Thinking()), engine.health) as client:
        for body in bodies:
            answer = await client.http.post(f"{client.url}/v1/s/a/chat/completions", content=body)
            assert answer.status_code == 200, answer.text
        await client.finish("a", reward=1.0)
    with FolderReader(folder) as reader:
        (row,) = reader.rows()
        trajectory = reader.trajectory(row.id)
    for step, request, sampled in zip(trajectory.steps, engine.requests, engine.completions, strict=True):
        assert trajectory.tokens_through(step).tolist() == [*request.tokens.tolist(), *sampled.tolist()]
    return trajectory


@pytest.mark.parametrize("name", FRAMEWORKS)
async def test_a_framework_goes_on_from_the_recorded_tokens(tmp_path: Path, name: str) -> None:
    begins, goes_on, beside = FRAMEWORKS[name]
    bodies = [f'{{"model":"bytes","messages":[{said}],{beside}}}' for said in (begins, f"{begins},{goes_on}")]
    trajectory = await played(tmp_path / "f", *bodies)
    first, second = trajectory.steps
    assert (first.context, second.context, trajectory.forks) == (None, first.id, 0)
    assert [call.arguments for call in first.action.tool_calls] == [{"a": 2, "b": 3}, {"b": 1.0, "a": 2}]
    assert [(message.role, message.name, message.content) for message in second.observation.messages] == [
        ("tool", "add", "5"),
        ("tool", "add", "3"),
    ]
    assert (second.action.text, trajectory.reward) == ("It is 5.", 1.0)


async def test_a_framework_that_writes_its_calls_anew_begins_a_new_context(tmp_path: Path) -> None:
    """smolagents sends the calls back as words of the assistant."""

    def part(role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": [{"type": "text", "text": text}]}

    said = [part("system", "You are an expert."), part("user", f"New task:\n{ASKED}")]
    more = [
        part("assistant", "Calling tools:\n[{'id': 'call_0_0', 'type': 'function'}]"),
        part("user", "Observation:\n5"),
    ]
    beside = {"model": "bytes", "stop": ["Observation:", "Calling tools:"], "tool_choice": "auto"}
    tools = {"tools": [json.loads(SPECS["plain"])]}
    bodies = [json.dumps({**beside, **tools, "messages": messages}) for messages in (said, said + more)]
    trajectory = await played(tmp_path / "f", *bodies)
    assert [step.context for step in trajectory.steps] == [None, None] and trajectory.forks == 1
    assert [message.content for message in trajectory.steps[0].observation.messages][1] == f"New task:\n{ASKED}"


@pytest.mark.parametrize(
    ("beside", "words"),
    [
        ('"tool_choice":"required"', 'Send "auto"'),  # smolagents; pydantic-ai where output_type is a class
        ('"parallel_tool_calls":false', "Leave it out"),
        ('"reasoning_effort":"low"', "leave it out"),
        ('"verbosity":"low"', "in the prompt"),
        ('"modalities":["text","audio"]', "text only"),
        (
            '"response_format":{"type":"json_schema","json_schema":{"name":"final_output","strict":true,"schema":{}}}',
            "Ask for the form",
        ),
    ],
)
async def test_what_a_framework_would_force_is_refused_with_what_to_do(tmp_path: Path, beside: str, words: str) -> None:
    engine = Engine()
    async with served(tmp_path / "f", TokenPlayer(engine, Thinking()), engine.health) as client:
        body = f'{{"messages":[{{"role":"user","content":"hi"}}],{beside}}}'
        answer = await client.http.post(f"{client.url}/v1/chat/completions", content=body)
        told = answer.json()["error"]
        assert (answer.status_code, told["code"]) == (400, "unsupported_parameter") and words in told["message"]
        assert beside.startswith(f'"{told["param"]}"') and not engine.requests


async def test_what_changes_nothing_is_taken(tmp_path: Path) -> None:
    beside = (
        '"store":false,"metadata":{"a":"b"},"modalities":["text"],"prompt_cache_retention":"24h","prompt_cache_key":"k",'
        '"service_tier":"auto","max_completion_tokens":9,"n":1,"parallel_tool_calls":true,"response_format":{"type":"text"}'
    )
    body = f'{{"messages":[{{"role":"developer","content":"hi"}}],{beside}}}'
    trajectory = await played(tmp_path / "f", body)
    (shown,) = trajectory.steps[0].observation.messages
    assert (shown.role, shown.content) == ("system", "hi")


async def test_the_responses_api_is_refused_with_the_way_to_the_other_one(tmp_path: Path) -> None:
    engine = Engine()
    async with served(tmp_path / "f", TokenPlayer(engine, Thinking()), engine.health) as client:
        answer = await client.http.post(f"{client.url}/v1/s/a/responses", json={"model": "bytes", "input": "hi"})
        assert answer.status_code == 404 and "OpenAIChatCompletionsModel" in answer.json()["error"]["message"]
        elsewhere = await client.http.get(f"{client.url}/v1/files")
        assert elsewhere.status_code == 404 and "openai-agents" not in elsewhere.text


async def test_a_session_that_is_over_is_not_asked_again_by_openais_clients(tmp_path: Path) -> None:
    engine = Engine()
    async with served(tmp_path / "f", TokenPlayer(engine, Thinking()), engine.health) as client:
        await client.ask("/v1/s/a", "hi")
        await client.finish("a", reward=1.0)
        late = await client.ask("/v1/s/a", "hi")
        assert (late.status_code, late.headers["x-should-retry"]) == (409, "false")
