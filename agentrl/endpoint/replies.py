"""An answer as OpenAI's clients read it: one body, or the events of a stream."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from agentrl.types import Message

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Spoken:
    """A sampled token as text."""

    text: str
    logprob: float
    "Nats."


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer."""

    message: Message
    "What the client is given, and will send back."
    finish: str
    "stop, length or tool_calls."
    reasoning: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    spoken: tuple[Spoken, ...] = ()
    "Where log-probabilities were asked for."


def body(name: str, model: str, choices: Sequence[Choice], session: str) -> bytes:
    told = {
        **_head(name, model, "chat.completion"),
        "choices": [
            {
                "index": index,
                "message": _message(choice),
                "logprobs": _logprobs(choice.spoken),
                "finish_reason": choice.finish,
            }
            for index, choice in enumerate(choices)
        ],
        "usage": _usage(choices),
        "session": session,
    }
    return msgspec.json.encode(told)


def events(name: str, model: str, choices: Sequence[Choice], usage: bool) -> Iterator[bytes]:
    """The answer in pieces: role, words, calls, why it ended; then the usage where it was asked for."""
    head = _head(name, model, "chat.completion.chunk")
    for index, choice in enumerate(choices):
        yield _event(head, index, {"role": "assistant", "content": ""})
        told = _message(choice)
        if choice.reasoning:
            yield _event(head, index, {"reasoning_content": choice.reasoning})
        for piece in _pieces(told["content"] or ""):
            yield _event(head, index, {"content": piece})
        for place, call in enumerate(told.get("tool_calls", ())):
            yield _event(head, index, {"tool_calls": [{"index": place, **call}]})
        yield _event(head, index, {}, choice.finish, _logprobs(choice.spoken))
    if usage:
        yield _line({**head, "choices": [], "usage": _usage(choices)})
    yield DONE


def model_list(names: Sequence[str]) -> bytes:
    entries = [{"id": name, "object": "model", "created": 0, "owned_by": "agentrl"} for name in names]
    return msgspec.json.encode({"object": "list", "data": entries})


def _head(name: str, model: str, kind: str) -> dict[str, Any]:
    return {"id": name, "object": kind, "created": int(time.time()), "model": model}


def _event(
    head: dict[str, Any], index: int, delta: dict[str, Any], finish: str | None = None, logprobs: Any = None
) -> bytes:
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
    return _line({**head, "choices": [choice]})


def _line(told: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(told) + b"\n\n"


def _pieces(text: str) -> Iterator[str]:
    """A word and the space before it at a time."""
    start = 0
    for place in range(1, len(text)):
        if text[place].isspace() and not text[place - 1].isspace():
            yield text[start:place]
            start = place
    if start < len(text):
        yield text[start:]


def _message(choice: Choice) -> dict[str, Any]:
    message = choice.message
    told: dict[str, Any] = {"role": "assistant", "content": message.content, "refusal": None}
    if choice.reasoning:
        told["reasoning_content"] = choice.reasoning
    if message.tool_calls:
        told["content"] = message.content or None
        told["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": msgspec.json.encode(call.arguments).decode()},
            }
            for call in message.tool_calls
        ]
    return told


def _logprobs(spoken: Sequence[Spoken]) -> Any:
    if not spoken:
        return None
    return {
        "content": [
            {"token": one.text, "logprob": one.logprob, "bytes": list(one.text.encode()), "top_logprobs": []}
            for one in spoken
        ],
        "refusal": None,
    }


def _usage(choices: Sequence[Choice]) -> dict[str, int]:
    prompt = max((choice.prompt_tokens for choice in choices), default=0)
    sampled = sum(choice.completion_tokens for choice in choices)
    return {"prompt_tokens": prompt, "completion_tokens": sampled, "total_tokens": prompt + sampled}
