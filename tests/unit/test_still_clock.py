"""The clock of tests: an hour passes at once, in order, and never while a thread works."""

from __future__ import annotations

import asyncio
import time

import pytest
from still_clock import still_clock


@still_clock
async def test_an_hour_passes_at_once_and_in_order() -> None:
    woken: list[int] = []

    async def sleep(minutes: int) -> None:
        await asyncio.sleep(60 * minutes)
        woken.append(minutes)

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3600):
            await asyncio.gather(*(sleep(minutes) for minutes in (59, 61, 1)))
    assert woken == [1, 59] and time.monotonic() - began < 60


@still_clock
async def test_work_in_a_thread_takes_no_time() -> None:
    async with asyncio.timeout(0.001):
        await asyncio.to_thread(time.sleep, 0.02)
    assert asyncio.get_running_loop().time() < 0.001
