"""What several integration tests start once: a Docker daemon, a server of a language model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from docker_daemon import daemon
from served_smollm2 import served


@pytest.fixture(scope="session")
def docker_host() -> Iterator[str]:
    """Its address; skips, with the reason, where none can be had."""
    pytest.importorskip("docker")
    with daemon() as address:
        yield address


@pytest.fixture(scope="session")
def smollm2_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `served_smollm2.NAME`."""
    with served(tmp_path_factory.mktemp("smollm2")) as url:
        yield url
