"""What the rollouts of one process share: an environment of theirs, loaded once, and what it serves to all of them.

It is begun by the first rollout, as an evaluation of theirs begins it, and ends with the process.
"""

from __future__ import annotations

import asyncio
from typing import Any


class Kept:
    """A loaded environment of theirs."""

    def __init__(self, theirs: Any) -> None:
        self.theirs = theirs
        self._serving: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    async def served(self) -> Any:
        """It with its shared tool servers up. Raises what kept them from starting; the next one tries again."""
        if self._serving is None or self._serving.done():
            # A task of its own: what they open is to be closed in the task that opened it.
            self._ready.clear()
            self._serving = asyncio.create_task(self._serve())
        ready = asyncio.ensure_future(self._ready.wait())
        await asyncio.wait({ready, self._serving}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._serving.done():
            self._serving.result()
        return self.theirs

    async def _serve(self) -> None:
        async with self.theirs.serving():
            self._ready.set()
            await asyncio.Event().wait()
