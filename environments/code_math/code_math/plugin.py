"""What this package registers: the environment `code_math` and the suite `code-math`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import agentrl
from code_math.env import CodeMath
from code_math.problems import Level


@agentrl.hookimpl
def agentrl_environments() -> Mapping[str, type[CodeMath]]:
    return {"code_math": CodeMath}


@agentrl.hookimpl
def agentrl_suites() -> Mapping[str, Callable[..., agentrl.Suite]]:
    return {"code-math": suite}


def suite(*, level: Level = "easy", sandbox: str = "embedded", shots: int = 2) -> agentrl.Suite:
    """256 held-out problems. level, sandbox, shots: as the environment's."""
    return agentrl.Suite(
        name="code-math",
        version="2",
        environment=CodeMath,
        options={"level": level, "sandbox": sandbox, "shots": shots},
        limits=agentrl.SuiteLimits(max_tokens=512),
    )
