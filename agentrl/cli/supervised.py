"""Runs a command's work to its end: the first Ctrl-C cancels, which saves; a second one kills."""

from __future__ import annotations

import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_supervised(work: Coroutine[Any, Any, T]) -> T:
    """Raises `KeyboardInterrupt` where it was cancelled."""
    import asyncio  # here, so that `agentrl --help` does without it

    async def supervised() -> T:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.remove_signal_handler(signal.SIGINT)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        return await task

    try:
        return asyncio.run(supervised())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
