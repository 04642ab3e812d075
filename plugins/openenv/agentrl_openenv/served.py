"""What a served environment speaks: one action and one observation for OpenEnv's clients of every kind.

A tool client calls `list_tools` and `call_tool`; a client that plays as agentrl does sends a whole decision, words and
calls, as `act`, and finds everything that a step gives in the observation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from openenv.core.env_server.mcp_types import CallToolObservation, ListToolsObservation, Tool, ToolError, ToolErrorType
from openenv.core.env_server.types import Action
from pydantic import BaseModel, Field

import agentrl
from agentrl.outcomes import UNKNOWN_TOOL


class Call(BaseModel):
    """One tool call of a decision."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    id: str = ""


class Decision(Action):
    """call_tool: one call. act: a whole decision, words and calls. list_tools: what can be called; it is no step."""

    type: Literal["call_tool", "act", "list_tools"] = "call_tool"
    tool_name: str = Field("", description="call_tool: the tool's name")
    arguments: dict[str, Any] = Field(default_factory=dict, description="call_tool: its arguments")
    text: str = Field("", description="act: what is said")
    tool_calls: list[Call] = Field(default_factory=list, description="act: the calls, in order")

    def as_action(self) -> agentrl.Action:
        if self.type == "call_tool":
            return agentrl.Action(tool_calls=(agentrl.ToolCall(self.tool_name, self.arguments),))
        calls = tuple(agentrl.ToolCall(made.name, made.arguments, made.id) for made in self.tool_calls)
        return agentrl.Action(text=self.text, tool_calls=calls)


class Told(BaseModel):
    """A message that is shown to the model."""

    role: str
    content: str
    name: str = ""
    call_id: str = ""


class Shown(CallToolObservation):
    """What came of a reset or of a decision; `result` is the text of it."""

    tool_name: str = ""
    messages: list[Told] = Field(default_factory=list)
    images: list[str] = Field(default_factory=list)
    state_key: str | None = None
    scores: dict[str, float] = Field(default_factory=dict)
    truncated: bool = False
    policy_error: str = ""


def opened(observation: agentrl.Observation) -> Shown:
    return _shown(observation)


def stepped(step: agentrl.StepResult, action: agentrl.Action) -> Shown:
    shown = _shown(step.observation)
    shown.tool_name = action.tool_calls[0].name if action.tool_calls else ""
    shown.reward, shown.done = step.reward, step.terminated or step.truncated
    shown.scores, shown.truncated, shown.policy_error = dict(step.scores), step.truncated, step.policy_error
    if step.policy_error:
        unknown = step.policy_error.startswith(UNKNOWN_TOOL)
        kind = ToolErrorType.TOOL_NOT_FOUND if unknown else ToolErrorType.EXECUTION_ERROR
        shown.error = ToolError(error_type=kind, message=step.policy_error)
    return shown


def listing(tools: Sequence[agentrl.ToolSpec]) -> ListToolsObservation:
    return ListToolsObservation(
        tools=[Tool(name=tool.name, description=tool.description, input_schema=dict(tool.parameters)) for tool in tools]
    )


def _shown(observation: agentrl.Observation) -> Shown:
    told = [
        Told(role=message.role, content=message.content, name=message.name, call_id=message.call_id)
        for message in observation.messages
    ]
    text = "\n".join(message.content for message in told)
    return Shown(
        result=text, messages=told, images=list(observation.images), state_key=observation.state_key, reward=None
    )
