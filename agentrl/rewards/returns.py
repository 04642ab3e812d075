"""What the environment alone gave, whatever reward models added to it since."""

from __future__ import annotations

from agentrl.types import Step, Trajectory


def environment_reward(step: Step) -> float:
    return float(step.scores.get("environment", step.reward))


def environment_return(trajectory: Trajectory) -> float:
    """Undiscounted."""
    return float(sum(environment_reward(step) for step in trajectory.steps))
