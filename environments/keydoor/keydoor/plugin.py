"""What this package registers: the environment `keydoor`."""

from __future__ import annotations

from collections.abc import Mapping

import agentrl
from keydoor.env import KeyDoor


@agentrl.hookimpl
def agentrl_environments() -> Mapping[str, type[KeyDoor]]:
    return {"keydoor": KeyDoor}
