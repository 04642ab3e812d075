"""What this package registers: the environment `openenv`. The command `serve-env` is an entry point."""

from __future__ import annotations

from collections.abc import Mapping

import agentrl

REQUIRES = ("openenv", "fastmcp")
"openenv-core's client cannot be imported without fastmcp."


@agentrl.hookimpl
def agentrl_environments() -> Mapping[str, agentrl.Lazy]:
    return {
        "openenv": agentrl.Lazy(
            "agentrl_openenv.world:OpenEnvWorld",
            requires=REQUIRES,
            extra="openenv",
            summary="any OpenEnv server, by address or started here (openenv-core 0.3, licence BSD-3-Clause)",
        )
    }
