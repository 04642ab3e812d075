"""What this package registers: the environment `search_qa` and the suite `search-qa`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import agentrl
from search_qa.env import SearchQA


@agentrl.hookimpl
def agentrl_environments() -> Mapping[str, type[SearchQA]]:
    return {"search_qa": SearchQA}


@agentrl.hookimpl
def agentrl_suites() -> Mapping[str, Callable[..., agentrl.Suite]]:
    return {"search-qa": suite}


def suite(*, hops: int = 3, topk: int = 3) -> agentrl.Suite:
    """256 held-out questions about generated worlds. hops: at most so many documents. topk: shown by a search."""
    return agentrl.Suite(
        name="search-qa",
        version="1",
        environment=SearchQA,
        options={"hops": hops, "topk": topk},
        count=256,
        limits=agentrl.SuiteLimits(max_tokens=128),
    )
