"""A port for a server that is started in a moment: one that the system hands to nobody else meanwhile.

A server binds its port seconds after it was told which. What the system hands out by itself (port 0, connections going
out) may be another's by then, so a port is chosen below that range.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
from pathlib import Path

_LOWEST, _HANDED_OUT_FROM = 16384, 32768
"The second where the system does not tell where its own range begins."
_TRIES = 100


def free_port() -> int:
    """Nobody listens on it at 127.0.0.1."""
    first = max(_LOWEST + _TRIES, _handed_out_from())
    for _ in range(_TRIES):
        # No generator that a seed repeats: two runs with one seed would choose alike.
        port = _LOWEST + secrets.randbelow(first - _LOWEST)
        with contextlib.suppress(OSError):
            return _bound(port)
    return _bound(0)


def _bound(port: int) -> int:
    """The port that was bound and is free again; 0 leaves the choice to the system. Raises `OSError`."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", port))
        return int(probe.getsockname()[1])


def _handed_out_from() -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return _HANDED_OUT_FROM
