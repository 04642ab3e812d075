"""Ports for servers that are started in a moment."""

import socket
from pathlib import Path

from agentrl.ports import free_port


def test_a_port_is_none_that_the_system_hands_out_and_differs_from_the_last() -> None:
    ports = {free_port() for _ in range(8)}
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(ports) > 1 and all(1024 < port < first for port in ports)
    with socket.create_server(("127.0.0.1", ports.pop())):
        pass
