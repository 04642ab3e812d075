"""What this package registers: `scienceworld`, the same with a tool that lists commands, and a suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import agentrl

JAVA = (("java", "openjdk-17-jre-headless"),)
MODULES = ("scienceworld", "py4j")


def _world(name: str, summary: str) -> agentrl.Lazy:
    target = f"agentrl_scienceworld.world:{name}"
    return agentrl.Lazy(target, requires=MODULES, extra="scienceworld", summary=summary, programs=JAVA)


@agentrl.hookimpl
def agentrl_environments() -> Mapping[str, agentrl.Lazy]:
    return {
        "scienceworld": _world("ScienceWorld", "thirty kinds of school experiments, in text (licence Apache-2.0)"),
        "scienceworld_commands": _world("ScienceWorldCommands", "scienceworld with a tool that lists what can be done"),
    }


@agentrl.hookimpl
def agentrl_suites() -> Mapping[str, Callable[..., agentrl.Suite]]:
    return {"scienceworld": suite}


def suite(*, held_out: str = "test", most: int = 10, max_steps: int = 100) -> agentrl.Suite:
    """ScienceWorld's own held-out variations, scored from 0 to 1 as its papers do.

    held_out: its split, test or dev. most: variations of each kind of task. max_steps: its own limit is 100.
    """
    from agentrl_scienceworld.world import ScienceWorld

    return agentrl.Suite(
        name="scienceworld",
        version="1",
        environment=ScienceWorld,
        options={"held_out": held_out, "most": most, "max_steps": max_steps},
        score=final_score,
        limits=agentrl.SuiteLimits(max_tokens=128, episode_deadline=1800.0),
    )


def final_score(trajectory: agentrl.Trajectory) -> float:
    """The simulator's score at the end; a negative one (the wrong thing was focused on) counts as 0."""
    return max(0.0, float(trajectory.steps[-1].scores.get("score", 0.0))) if trajectory.steps else 0.0
