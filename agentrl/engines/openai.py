"""An OpenAI-compatible chat API as an engine for evaluation.

It is given messages, not tokens, and returns no ids that a learner could train on: `chat` is the only way in, and
`generate` refuses. A malformed tool call is reported in `Action.error`, never repaired.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn
from urllib.parse import urlsplit

import msgspec

from agentrl.engines.http import EXCERPT, LOOPBACK, HttpClient
from agentrl.errors import ConfigError, InfrastructureFault, TrainingError
from agentrl.protocols import ChatReply, EngineHealth, GenerateRequest, Usage
from agentrl.types import (
    JSON,
    Action,
    Completion,
    Finish,
    Floats,
    Message,
    SamplingParams,
    TokenIds,
    ToolCall,
    ToolSpec,
)

# Overloaded or restarting: the same request may well succeed a moment later.
PASSING = (408, 409, 425, 429, 500, 502, 503, 504, 529)


class OpenAIEngine:
    """Evaluates `model` behind `base_url` (".../v1"); the key is read from the environment variable `api_key_env`.

    Of the sampling parameters, `max_tokens`, `temperature` and `seed` are sent. `token_limit` is the name under which
    the server takes `max_tokens`; OpenAI's own reasoning models want "max_completion_tokens". `response_format`, such
    as a JSON schema that replies have to keep, goes with every request as it is.
    """

    trainable = False
    version = 0

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        timeout: float = 120.0,
        max_context: int = 128_000,
        token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens",
        response_format: Mapping[str, JSON] | None = None,
    ) -> None:
        key = os.environ.get(api_key_env, "")
        if not key and urlsplit(base_url).hostname not in LOOPBACK:
            raise ConfigError(
                f"{base_url} needs a key and ${api_key_env} is not set. Set it, or name another variable."
            )
        self.model = model
        self.max_context = max_context
        self._token_limit = token_limit
        self._response_format = response_format
        self._running = 0
        self._open = asyncio.Event()
        self._open.set()
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = HttpClient(base_url, headers, timeout, retry_statuses=PASSING)

    async def chat(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec],
        sampling: SamplingParams,
        response_format: Mapping[str, JSON] | None = None,
    ) -> ChatReply:
        """One answer, in `response_format` where one is given for it. Raises `InfrastructureFault` where the server
        fails for good or answers nonsense."""
        body: dict[str, JSON] = {
            "model": self.model,
            "messages": chat_messages(messages),
            "temperature": sampling.temperature,
            self._token_limit: sampling.max_tokens,
        }
        form = self._response_format if response_format is None else response_format
        if form is not None:
            body["response_format"] = dict(form)
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if tools:
            body["tools"] = [tool.as_function() for tool in tools]
        await self._open.wait()
        self._running += 1
        try:
            return _parse(await self._http.post_json("chat/completions", body, repeatable=True))
        finally:
            self._running -= 1

    async def start(self) -> None:
        return None

    async def generate(self, request: GenerateRequest) -> Completion:
        self._refuse("sample tokens")

    async def score(self, tokens: TokenIds) -> Floats:
        self._refuse("score tokens")

    async def pause(self) -> None:
        self._open.clear()

    async def resume(self) -> None:
        self._open.set()

    async def forget(self, session: str) -> None:
        return None

    async def health(self) -> EngineHealth:
        try:
            await self._http.get_json("models", 10.0)
        except InfrastructureFault as fault:
            return EngineHealth(False, str(fault), self._running)
        return EngineHealth(True, "", self._running)

    async def close(self) -> None:
        await self._http.close()

    def _refuse(self, what: str) -> NoReturn:
        raise TrainingError(
            f"the OpenAI-compatible engine ({self.model}) cannot {what}: a chat API returns no token ids and no "
            "log-probabilities of them, so nothing could be trained on. Train with the vllm or the transformers "
            "engine; this one is for evaluation."
        )


def chat_messages(messages: Sequence[Message]) -> list[dict[str, JSON]]:
    """`messages` as the chat API takes them: every tool call has an id and, before anyone else speaks, an answer."""
    wire: list[dict[str, JSON]] = []
    open_calls: list[str] = []
    for index, message in enumerate(messages):
        if message.role == "tool":
            answered = message.call_id if message.call_id in open_calls else (open_calls or [message.call_id])[0]
            if answered in open_calls:
                open_calls.remove(answered)
            wire.append({"role": "tool", "tool_call_id": answered, "content": message.content})
            continue
        wire += _no_answer(open_calls)
        entry: dict[str, JSON] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            open_calls = [call.id or f"call_{index}_{i}" for i, call in enumerate(message.tool_calls)]
            entry["tool_calls"] = [
                {
                    "id": name,
                    "type": "function",
                    "function": {"name": call.name, "arguments": msgspec.json.encode(call.arguments).decode()},
                }
                for name, call in zip(open_calls, message.tool_calls, strict=True)
            ]
        wire.append(entry)
    return wire + _no_answer(open_calls)


def _no_answer(open_calls: list[str]) -> list[dict[str, JSON]]:
    # Servers refuse a conversation in which a call has no answer, as after a step with one call too many.
    silent: list[dict[str, JSON]] = [{"role": "tool", "tool_call_id": name, "content": ""} for name in open_calls]
    open_calls.clear()
    return silent


class _Function(msgspec.Struct):
    name: str
    arguments: str | dict[str, Any] | None = None


class _Call(msgspec.Struct):
    function: _Function
    id: str | None = None


class _Answer(msgspec.Struct):
    content: str | None = None
    tool_calls: list[_Call] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    message: _Answer
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Body(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


def _parse(body: JSON) -> ChatReply:
    try:
        parsed = msgspec.convert(body, _Body)
        choice = parsed.choices[0]
    except (msgspec.ValidationError, IndexError) as error:
        excerpt = msgspec.json.encode(body).decode()[:EXCERPT]
        raise InfrastructureFault(
            f"the chat API answered something else than a chat completion ({error}): {excerpt}. "
            "Does base_url end in /v1?"
        ) from error
    usage = parsed.usage or _Usage()
    return ChatReply(
        _action(choice.message),
        Finish.LENGTH if choice.finish_reason == "length" else Finish.STOP,
        Usage(usage.prompt_tokens or 0, usage.completion_tokens or 0),
    )


def _action(answer: _Answer) -> Action:
    text = answer.content or ""
    reasoning = answer.reasoning_content or answer.reasoning or ""
    calls = []
    for call in answer.tool_calls or ():
        arguments = _arguments(call.function)
        if isinstance(arguments, str):
            return Action(text, (), reasoning, arguments)
        calls.append(ToolCall(call.function.name, arguments, call.id or ""))
    return Action(text, tuple(calls), reasoning)


def _arguments(function: _Function) -> Mapping[str, JSON] | str:
    """The arguments of a call, or, as a string, what is wrong with them."""
    if isinstance(function.arguments, dict):
        return function.arguments
    # A call without arguments comes as "" from some servers.
    raw = function.arguments or "{}"
    try:
        arguments = msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        return f"the arguments of the call to {function.name} are not valid JSON ({error}): {raw[:EXCERPT]}"
    if not isinstance(arguments, dict):
        return f"the arguments of the call to {function.name} are not a JSON object: {raw[:EXCERPT]}"
    return arguments
