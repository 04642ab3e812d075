"""For authors of environments: checks that prove one sound, an episode of given actions, agents that need no model."""

from agentrl.agents import Agent, NullAgent, RandomAgent, ScriptedAgent
from agentrl.testing.checks import assert_environment, check_environment
from agentrl.testing.report import CheckReport, CheckResult
from agentrl.testing.scripted import play

__all__ = [
    "Agent",
    "CheckReport",
    "CheckResult",
    "NullAgent",
    "RandomAgent",
    "ScriptedAgent",
    "assert_environment",
    "check_environment",
    "play",
]
