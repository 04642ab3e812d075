"""What this package registers: the environment `retail_desk`."""

from __future__ import annotations

from collections.abc import Mapping

import agentrl
from retail_desk.env import RetailDesk


@agentrl.hookimpl
def agentrl_environments() -> Mapping[str, type[RetailDesk]]:
    return {"retail_desk": RetailDesk}
