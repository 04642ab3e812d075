"""Servers of theirs and of ours in the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent
Serve = Callable[[Any], AbstractAsyncContextManager[str]]


@pytest.fixture(scope="session")
def theirs() -> ModuleType:
    """The module of servers that are written with openenv-core alone."""
    found = importlib.util.spec_from_file_location("their_servers", HERE / "their_servers.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture
def serve() -> Serve:
    """`async with serve(app) as url`."""
    import uvicorn
    from agentrl_openenv.server import listen

    @contextlib.asynccontextmanager
    async def serving(app: Any) -> AsyncIterator[str]:
        with listen("127.0.0.1", 0) as listening:
            server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
            task = asyncio.create_task(server.serve([listening]))
            try:
                yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            finally:
                server.should_exit = True
                await task

    return serving
