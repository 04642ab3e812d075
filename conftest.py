"""How `pytest -n` deals the tests out: a file is one worker's, and what shares a server is one file to it.

What takes longest goes first and the unit tests, many and short, go last: so no worker is left with a long file while
the other is done. Without `-n` only that order remains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

TOGETHER = {
    # Never two servers of vLLM at a time, but for those that one file starts.
    "test_vllm_engine.py": "vLLM",
    "test_eval_vllm.py": "vLLM",
    "test_judge_vllm.py": "vLLM",
    "test_sandbox_docker.py": "Docker",
    "test_sandbox_escapes.py": "Docker",
}
"The files that go first, by what they start."


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = list(TOGETHER)

    def rank(item: pytest.Item) -> int:
        if item.path.name in order:
            return order.index(item.path.name)
        return len(order) + (item.path.parent.name == "unit")

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    from xdist.scheduler import LoadFileScheduling

    class ByServer(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return TOGETHER.get(file.rpartition("/")[2], file)

    # xdist would begin with the files of most tests, which are not those that take longest.
    config.option.loadscopereorder = False
    return ByServer(config, log)
