"""What this package registers: the environment and the suite `alfworld`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import agentrl

# Without its dependencies' dependencies: Jericho asks for spaCy (half a gigabyte) and is only imported here.
WORLD = agentrl.OwnVenv(
    "agentrl_alfworld.env:AlfWorld",
    requirements=(
        "--no-deps",
        *("alfworld==0.4.2", "textworld==1.7.0", "fast-downward-textworld==20.6.4"),
        *("jericho==3.3.1", "TatSu==5.8.3", "mementos==1.3.1", "hashids==1.3.1"),
        *("networkx", "numpy", "more-itertools", "termcolor", "tqdm"),
    ),
    summary="six kinds of household tasks (licences MIT, Fast Downward GPL-3.0; compiles for minutes, once)",
)


@agentrl.hookimpl
def agentrl_environments() -> Mapping[str, agentrl.OwnVenv]:
    return {"alfworld": WORLD}


@agentrl.hookimpl
def agentrl_suites() -> Mapping[str, Callable[..., agentrl.Suite]]:
    return {"alfworld": suite}


def suite(
    *, data: str = "", split: Literal["valid_seen", "valid_unseen"] = "valid_unseen", admissible: bool = True
) -> agentrl.Suite:
    """Held-out tasks, 128 of the generated ones. data: folder of the official games. split: valid_seen or valid_unseen.

    admissible: tell what can be done.
    """
    return agentrl.Suite(
        name="alfworld",
        version="1",
        environment=WORLD.factory("alfworld"),
        options={"data": data, "admissible": admissible},
        split=split,
        count=None if data else 128,
        limits=agentrl.SuiteLimits(max_tokens=128),
    )
