"""What this package registers: the environment `reasoning_gym`."""

from __future__ import annotations

from collections.abc import Mapping

import agentrl


@agentrl.hookimpl
def agentrl_environments() -> Mapping[str, agentrl.Lazy]:
    return {
        "reasoning_gym": agentrl.Lazy(
            "agentrl_reasoning_gym.problems:ReasoningGym",
            requires=("reasoning_gym",),
            extra="reasoning-gym",
            summary="one of about a hundred generators of problems with a checked answer (licence Apache-2.0)",
        )
    }
