"""What this package registers: the environments `gymnasium` (any id) and `minigrid` (MiniGrid and BabyAI)."""

from __future__ import annotations

from collections.abc import Mapping

import agentrl


@agentrl.hookimpl
def agentrl_environments() -> Mapping[str, agentrl.Lazy]:
    return {
        "gymnasium": agentrl.Lazy(
            "agentrl_gymnasium.environment:GymnasiumText",
            requires=("gymnasium",),
            extra="gymnasium",
            summary="any Gymnasium world with discrete actions, in words (licence MIT; the world may differ)",
        ),
        "minigrid": agentrl.Lazy(
            "agentrl_gymnasium.minigrid:MiniGridText",
            requires=("minigrid",),
            extra="minigrid",
            summary="MiniGrid and BabyAI in words (licences Apache-2.0 and MIT)",
        ),
    }
