"""What this package registers: the environment `verifiers`, in a virtual environment of its own."""

from __future__ import annotations

from collections.abc import Mapping

import agentrl

REQUIREMENTS = ("verifiers==0.4.0",)
"It wants an older MCP SDK and an older OpenAI client than ours."


@agentrl.hookimpl
def agentrl_environments() -> Mapping[str, agentrl.OwnVenv]:
    return {
        "verifiers": agentrl.OwnVenv(
            "agentrl_verifiers.world:VerifiersWorld",
            requirements=REQUIREMENTS,
            summary="a single-turn taskset of verifiers 0.4, its own rewards (licence MIT; the taskset's may differ)",
        )
    }
