"""What one process keeps of verifiers between its rollouts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from agentrl_verifiers.kept import Kept


class Theirs:
    """An environment of theirs, as far as it is kept; `faults` are what its starts end with."""

    def __init__(self, *faults: Exception) -> None:
        self._faults = list(faults)
        self.begun = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        self.begun += 1
        if self._faults:
            raise self._faults.pop(0)
        yield


async def test_tool_servers_are_started_once_for_all_rollouts_of_a_process() -> None:
    theirs = Theirs()
    kept = Kept(theirs)
    assert [await kept.served() for _ in range(3)] == [theirs] * 3
    assert theirs.begun == 1


async def test_a_start_that_failed_is_told_and_tried_again() -> None:
    theirs = Theirs(RuntimeError("no port"))
    kept = Kept(theirs)
    with pytest.raises(RuntimeError, match="no port"):
        await kept.served()
    assert await kept.served() is theirs and theirs.begun == 2
