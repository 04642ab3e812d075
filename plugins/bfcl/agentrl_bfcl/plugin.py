"""What this package registers: the environment `bfcl_multi_turn` and a suite for it and for each category.

bfcl-eval pins some thirty packages, numpy among them, of which the multi-turn tasks need one: so it is installed
without them, in a virtual environment of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import agentrl

NAME = "bfcl_multi_turn"
PACKAGE = "bfcl-eval==2026.3.23"
CATEGORIES = ("base", "miss_func", "miss_param", "long_context")
WORLD = agentrl.OwnVenv(
    "agentrl_bfcl.world:BfclMultiTurn",
    requirements=("--no-deps", PACKAGE, "mpmath==1.3.0"),
    summary="BFCL v4 multi-turn: 4 categories of 200 tasks, simulated APIs, the package's own checks (Apache-2.0)",
)


@agentrl.hookimpl
def agentrl_environments() -> Mapping[str, agentrl.OwnVenv]:
    return {NAME: WORLD}


@agentrl.hookimpl
def agentrl_suites() -> Mapping[str, Callable[..., agentrl.Suite]]:
    return {_suite_name(category): _suite_of(category) for category in ("all", *CATEGORIES)}


def _suite_of(category: str) -> Callable[..., agentrl.Suite]:
    def suite(*, split: Literal["all", "test"] = "all") -> agentrl.Suite:
        # Raises `MissingDependencyError` where the virtual environment is not installed.
        return agentrl.Suite(
            name=_suite_name(category),
            version=f"1 {PACKAGE}",
            environment=WORLD.factory(NAME),
            options={"category": category},
            split=split,
            limits=agentrl.SuiteLimits(max_tokens=1024, episode_deadline=1800.0),
        )

    count = 200 if category != "all" else 800
    suite.__doc__ = f"BFCL multi-turn, {category}: {count} tasks. split: all, or test for the quarter that is held out."
    return suite


def _suite_name(category: str) -> str:
    return "bfcl-multi-turn" if category == "all" else f"bfcl-{category.replace('_', '-')}"
