"""For authors of environments: checks that prove one sound, and agents that need no model."""

from agentrl.agents import Agent, NullAgent, RandomAgent, ScriptedAgent
from agentrl.testing.checks import assert_environment, check_environment
from agentrl.testing.report import CheckReport, CheckResult

__all__ = [
    "Agent",
    "CheckReport",
    "CheckResult",
    "NullAgent",
    "RandomAgent",
    "ScriptedAgent",
    "assert_environment",
    "check_environment",
]
