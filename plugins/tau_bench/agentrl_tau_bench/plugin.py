"""What this package registers: the environment `tau_retail` and the suite `tau-retail`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import agentrl


@agentrl.hookimpl
def agentrl_environments() -> Mapping[str, agentrl.Lazy]:
    return {
        "tau_retail": agentrl.Lazy(
            "agentrl_tau_bench.world:TauRetail",
            summary="tau-bench retail from a checkout: data=... or $TAU_BENCH_DATA (MIT; nothing of it is shipped)",
        )
    }


@agentrl.hookimpl
def agentrl_suites() -> Mapping[str, Callable[..., agentrl.Suite]]:
    return {"tau-retail": suite}


def suite(
    *,
    data: str = "",
    split: Literal["train", "test", "dev"] = "test",
    user_url: str = "",
    user_model: str = "",
    user_key_env: str = "OPENAI_API_KEY",
) -> agentrl.Suite:
    """The 115 tasks of tau-bench retail's test split. Options as the environment's."""
    from agentrl_tau_bench.world import TauRetail

    user = {"user_url": user_url, "user_model": user_model, "user_key_env": user_key_env}
    return agentrl.Suite(
        name="tau-retail",
        version="1",
        environment=TauRetail,
        options={"data": data, **user},
        split=split,
        limits=agentrl.SuiteLimits(max_tokens=1024, episode_deadline=1800.0),
    )
