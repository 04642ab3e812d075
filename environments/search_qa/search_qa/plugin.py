"""What this package registers: the environment `search_qa` and the command `agentrl search`."""

from __future__ import annotations

from collections.abc import Mapping

import agentrl
from search_qa.env import SearchQA


@agentrl.hookimpl
def agentrl_environments() -> Mapping[str, type[SearchQA]]:
    return {"search_qa": SearchQA}


@agentrl.hookimpl
def agentrl_commands() -> Mapping[str, agentrl.Lazy]:
    return {"search": agentrl.Lazy("search_qa.command:app", summary="index a corpus for search_qa, and look into it")}
