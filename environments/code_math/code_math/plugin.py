"""What this package registers: the environment `code_math`."""

from __future__ import annotations

from collections.abc import Mapping

import agentrl
from code_math.env import CodeMath


@agentrl.hookimpl
def agentrl_environments() -> Mapping[str, type[CodeMath]]:
    return {"code_math": CodeMath}
