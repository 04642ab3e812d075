"""What this package registers: `verifiers` and `verifiers_rollouts`, both in one virtual environment of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import agentrl

REQUIREMENTS = ("verifiers==0.4.0",)
"It wants an older MCP SDK and an older OpenAI client than ours."


class OwnAgents(agentrl.OwnVenv):
    """A world in its virtual environment that plays by itself, once it is told where the policy is."""

    def factory(self, name: str) -> Any:
        from agentrl_verifiers.agent import Agents

        return Agents(super().factory(name))


@agentrl.hookimpl
def agentrl_environments() -> Mapping[str, agentrl.OwnVenv]:
    return {
        "verifiers": agentrl.OwnVenv(
            "agentrl_verifiers.world:VerifiersWorld",
            requirements=REQUIREMENTS,
            summary="a single-turn taskset of verifiers 0.4, its own rewards (licence MIT; the taskset's may differ)",
        ),
        "verifiers_rollouts": OwnAgents(
            "agentrl_verifiers.rollouts:Rollouts",
            requirements=REQUIREMENTS,
            summary="rollouts of verifiers 0.4, their loop, turns and tools (licence MIT; the taskset's may differ)",
        ),
    }
