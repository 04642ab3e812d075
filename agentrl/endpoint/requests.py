"""A chat request as it arrives, read strictly: what would be answered otherwise than asked is refused with a reason."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from agentrl.endpoint.problems import Problem, unsupported
from agentrl.types import JSON, Message, Role, ToolCall, ToolSpec

MOST_CHOICES = 16
NOT_A_CALL = "the assistant message calls {name} with arguments that are not a JSON object: {raw}"


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What the policy is asked."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    calls: bool = True
    "False where the client wants words only, whatever the policy says (tool_choice none)."
    model: str = ""
    n: int = 1
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    stream: bool = False
    stream_usage: bool = False
    user: str = ""


def parse_request(data: bytes) -> ChatRequest:
    """Raises `Problem` (400) for anything that is not a chat request, or that no engine of ours can do."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"the body is not JSON: {error}.", code="invalid_json") from None
    if not isinstance(body, dict):
        raise Problem(400, f"the body is a JSON {type(body).__name__}; a chat request is an object.")
    for name, reason in _CANNOT.items():
        if body.get(name) not in (None, 0, False, {}, []):
            raise unsupported(name, f"{name} is not supported: {reason}")
    try:
        read = _Body.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        words = "this server does not know it; leave it out" if first["type"] == "extra_forbidden" else first["msg"]
        raise Problem(400, f"{place}: {words}.", param=place) from None
    _refuse(read)
    limit = read.max_completion_tokens if read.max_tokens is None else read.max_tokens
    return ChatRequest(
        messages=_messages(read.messages),
        tools=tuple(_tool(tool.function) for tool in read.tools or ()),
        calls=read.tool_choice != "none",
        model=read.model,
        n=read.n or 1,
        max_tokens=limit,
        temperature=read.temperature,
        seed=read.seed,
        stop=(read.stop,) if isinstance(read.stop, str) else tuple(read.stop or ()),
        logprobs=bool(read.logprobs),
        stream=bool(read.stream),
        stream_usage=bool(read.stream_options and read.stream_options.include_usage),
        user=read.user or "",
    )


_CANNOT: Mapping[str, str] = {
    "functions": "send tools.",
    "function_call": "send tools and tool_choice.",
    "logit_bias": "a token would no longer be a sample of the policy.",
    "frequency_penalty": "a token would no longer be a sample of the policy.",
    "presence_penalty": "a token would no longer be a sample of the policy.",
    "top_k": "a cut distribution biases what is learned from the sample.",
    "min_p": "a cut distribution biases what is learned from the sample.",
    "top_logprobs": "the log-probability of each sampled token comes with logprobs = true.",
    "audio": "text only.",
    "prediction": "the answer is sampled.",
    "web_search_options": "bring a tool of your own.",
    "reasoning_effort": "the policy thinks for as long as it was taught to; leave it out.",
    "verbosity": "say in the prompt how long an answer should be.",
}
"Keys that would change what is sampled or told, and why they cannot."


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Loose(BaseModel):
    """What clients send back of an answer grows with their versions."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Function(_Loose):
    """`strict` is taken and not kept: arguments are as they were sampled, and the client checks them."""

    name: str
    description: str | None = None
    parameters: dict[str, JSON] | None = None


class _Tool(_Loose):
    type: Literal["function"] = "function"
    function: _Function


class _CalledFunction(_Loose):
    name: str
    arguments: str | dict[str, JSON] | None = None


class _Call(_Loose):
    id: str = ""
    type: Literal["function"] = "function"
    function: _CalledFunction


class _Text(_Loose):
    type: Literal["text"]
    text: str


def _joined(value: Any) -> Any:
    """Content in parts of text is one text; other parts are refused by the type."""
    if isinstance(value, list):
        return "".join(_Text.model_validate(part).text for part in value)
    return "" if value is None else value


class _Message(_Loose):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str, BeforeValidator(_joined)] = ""
    tool_calls: list[_Call] | None = None
    tool_call_id: str = ""
    name: str | None = None


class _ResponseFormat(_Loose):
    type: str = "text"


class _StreamOptions(_Loose):
    include_usage: bool | None = None


class _Body(_Strict):
    messages: Annotated[list[_Message], Field(min_length=1)]
    model: str = ""
    tools: list[_Tool] | None = None
    tool_choice: JSON = None
    parallel_tool_calls: bool | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: Annotated[str, Field(min_length=1)] | list[Annotated[str, Field(min_length=1)]] | None = None
    logprobs: bool | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    response_format: _ResponseFormat | None = None
    user: str | None = None
    # Taken and without effect: they do not change what is sampled.
    functions: JSON = None
    function_call: JSON = None
    logit_bias: JSON = None
    frequency_penalty: JSON = None
    presence_penalty: JSON = None
    top_k: JSON = None
    min_p: JSON = None
    top_logprobs: JSON = None
    audio: JSON = None
    prediction: JSON = None
    web_search_options: JSON = None
    reasoning_effort: JSON = None
    verbosity: JSON = None
    modalities: list[str] | None = None
    metadata: JSON = None
    store: JSON = None
    service_tier: JSON = None
    prompt_cache_key: JSON = None
    prompt_cache_options: JSON = None
    prompt_cache_retention: JSON = None
    safety_identifier: JSON = None


def _refuse(read: _Body) -> None:
    if read.top_p not in (None, 1.0):
        raise unsupported("top_p", f"top_p is {read.top_p:g}; only 1 is sampled: a cut distribution biases learning.")
    if read.tool_choice not in (None, "auto", "none"):
        raise unsupported(
            "tool_choice",
            'tool_choice is "auto" or "none", since a call that is forced is not the policy\'s. Send "auto", and say '
            "in the prompt that a tool is to be called.",
        )
    if read.parallel_tool_calls is False:
        raise unsupported(
            "parallel_tool_calls", "parallel_tool_calls cannot be false: the policy decides. Leave it out."
        )
    if read.response_format is not None and read.response_format.type != "text":
        raise unsupported(
            "response_format",
            "response_format is text, since an answer that is forced is not the policy's. Ask for the form in the "
            "prompt, and check the answer in the agent.",
        )
    if read.modalities not in (None, ["text"]):
        raise unsupported("modalities", f"modalities is {read.modalities}; an answer is text only.")


def _messages(given: Sequence[_Message]) -> tuple[Message, ...]:
    """With the name of the tool at each of its answers, as renderers want it."""
    called: dict[str, str] = {}
    found = []
    for message in given:
        role: Role = "system" if message.role == "developer" else message.role
        calls = tuple(_call(call.function, call.id) for call in message.tool_calls or ())
        called.update((call.id, call.name) for call in calls)
        name = message.name or called.get(message.tool_call_id, "") if role == "tool" else ""
        found.append(Message(role, message.content, calls, name, message.tool_call_id))
    return tuple(found)


def _call(function: _CalledFunction, name: str) -> ToolCall:
    arguments: JSON = function.arguments or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = None
    if not isinstance(arguments, dict):
        words = NOT_A_CALL.format(name=function.name, raw=str(function.arguments)[:200])
        raise Problem(400, f"{words}.", param="messages")
    return ToolCall(function.name, arguments, name)


def _tool(function: _Function) -> ToolSpec:
    parameters = function.parameters or {"type": "object", "properties": {}}
    return ToolSpec(function.name, function.description or "", parameters)
