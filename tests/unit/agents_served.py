"""An agent with a loop of its own, and a policy in bytes that answers it: for tests of the endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import httpx
from fakes_rollout import Engine, Renderer

from agentrl import AgentEnv, Ending, Task
from agentrl.protocols import GenerateRequest
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.rollout.tokens import TokenPlayer
from agentrl.types import Action, TokenIds, ToolCall, ToolSpec, Trajectory

TASK = Task("t", "agent")
TOOL = {"type": "function", "function": {"name": "add", "description": "", "parameters": {"type": "object"}}}
Play = Callable[[Task, str], Any]


class Calling(Renderer):
    """`@NAME` is a call of NAME without arguments."""

    def parse(self, tokens: TokenIds, tools: Sequence[ToolSpec]) -> Action:
        text = self.decode(tokens)
        if text.startswith("@"):
            return Action(tool_calls=(ToolCall(text[1:], {}),))
        return super().parse(tokens, tools)


class Scripted(AgentEnv):
    """An agent whose loop is a function."""

    def __init__(self, agent: Play) -> None:
        self._agent = agent

    def tasks(self, split: str) -> Iterable[Task]:
        return [TASK]

    async def play(self, task: Task, base_url: str) -> float | Ending:
        verdict: float | Ending = await self._agent(task, base_url)
        return verdict


async def ask(base_url: str, *said: str | dict[str, Any], **more: Any) -> Any:
    """One request; text is a user's message. The answer's body, or the response where it is none."""
    messages = [{"role": "user", "content": one} if isinstance(one, str) else one for one in said]
    async with httpx.AsyncClient(timeout=30.0, verify=False) as client:
        answer = await client.post(f"{base_url}/chat/completions", json={"messages": messages, **more})
    return answer.json() if answer.status_code == 200 else answer


def reply(body: Any, index: int = 0) -> dict[str, Any]:
    """The assistant's message, as a client sends it back."""
    message: dict[str, Any] = body["choices"][index]["message"]
    return {key: value for key, value in message.items() if key in ("role", "content", "tool_calls")}


def engine_of(*answers: str) -> Engine:
    """Answers in turn."""
    left = iter(answers)
    return Engine(lambda request: next(left))


def rollout_of(environment: Callable[[], AgentEnv], engine: Engine, **limits: Any) -> RolloutEngine:
    return RolloutEngine(
        environment,
        TokenPlayer(engine, Calling()),
        limits=EpisodeLimits(**{"max_tokens": 16, **limits}),
        supervision=Supervision(attempts=1, failure_bound=1.0),
    )


async def played(agent: Play, engine: Engine, **limits: Any) -> Trajectory:
    async with rollout_of(lambda: Scripted(agent), engine, **limits) as rollout:
        return await rollout.episode(TASK, 0)


def prompts(requests: Sequence[GenerateRequest]) -> list[str]:
    return [Renderer().decode(request.tokens) for request in requests]
