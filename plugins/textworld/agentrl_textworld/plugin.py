"""What this package registers: the environment and the suite `textworld`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import agentrl

# Without its dependencies' dependencies: Jericho asks for spaCy (half a gigabyte) and reads it for other makers' games.
WORLD = agentrl.OwnVenv(
    "agentrl_textworld.env:TextWorldGame",
    requirements=(
        "--no-deps",
        *("textworld==1.7.0", "jericho==3.3.1", "TatSu==5.8.3", "mementos==1.3.1", "hashids==1.3.1"),
        *("networkx", "numpy", "more-itertools", "termcolor", "tqdm"),
    ),
    summary="text adventures by TextWorld; a folder of games, or the twelve in the box (licences MIT, Jericho GPL-2.0)",
)


@agentrl.hookimpl
def agentrl_environments() -> Mapping[str, agentrl.OwnVenv]:
    return {"textworld": WORLD}


@agentrl.hookimpl
def agentrl_suites() -> Mapping[str, Callable[..., agentrl.Suite]]:
    return {"textworld": suite}


def suite(*, games: str = "", admissible: bool = True) -> agentrl.Suite:
    """The held-out games. games: a folder of them, else those in the box. admissible: tell what can be done."""
    return agentrl.Suite(
        name="textworld",
        version="1",
        environment=WORLD.factory("textworld"),
        options={"games": games, "admissible": admissible},
        limits=agentrl.SuiteLimits(max_tokens=64),
    )
