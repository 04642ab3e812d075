"""agentrl: anyone's environment becomes a place where a language-model agent is trained and measured.

The public names are imported on first use, so `import agentrl` costs milliseconds and loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentrl.endpoint.agent import AgentEnv
    from agentrl.endpoint.session import Ending
    from agentrl.environment import Env, call, say
    from agentrl.errors import AgentRLError, EnvironmentFault
    from agentrl.evaluation.suite import Suite, SuiteLimits
    from agentrl.hooks import hookimpl
    from agentrl.pictures import picture
    from agentrl.plugins import Lazy
    from agentrl.tools import ToolError, tool
    from agentrl.types import (
        Action,
        Group,
        Message,
        Observation,
        Step,
        StepResult,
        Task,
        ToolCall,
        ToolSpec,
        Trajectory,
    )
    from agentrl.venvs import OwnVenv

__version__ = "0.1.0"

_HOMES = {
    "agentrl.endpoint.agent": ("AgentEnv",),
    "agentrl.endpoint.session": ("Ending",),
    "agentrl.environment": ("Env", "call", "say"),
    "agentrl.errors": ("AgentRLError", "EnvironmentFault"),
    "agentrl.evaluation.suite": ("Suite", "SuiteLimits"),
    "agentrl.hooks": ("hookimpl",),
    "agentrl.pictures": ("picture",),
    "agentrl.plugins": ("Lazy",),
    "agentrl.tools": ("ToolError", "tool"),
    "agentrl.venvs": ("OwnVenv",),
    "agentrl.types": (
        "Action",
        "Group",
        "Message",
        "Observation",
        "Step",
        "StepResult",
        "Task",
        "ToolCall",
        "ToolSpec",
        "Trajectory",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022  (grouped by what a reader looks for)
    "Env",
    "AgentEnv",
    "Ending",
    "tool",
    "ToolError",
    "call",
    "say",
    "picture",
    "Task",
    "Observation",
    "Message",
    "Action",
    "ToolCall",
    "ToolSpec",
    "StepResult",
    "Step",
    "Trajectory",
    "Group",
    "Suite",
    "SuiteLimits",
    "hookimpl",
    "Lazy",
    "OwnVenv",
    "AgentRLError",
    "EnvironmentFault",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'agentrl' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
