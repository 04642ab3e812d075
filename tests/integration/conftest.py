"""What several integration tests start once: a Docker daemon."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from docker_daemon import daemon


@pytest.fixture(scope="session")
def docker_host() -> Iterator[str]:
    """Its address; skips, with the reason, where none can be had."""
    pytest.importorskip("docker")
    with daemon() as address:
        yield address
