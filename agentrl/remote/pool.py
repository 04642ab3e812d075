"""Workers that wait for their next episode, by address: starting one costs as much as importing the environment.

A worker serves one episode at a time; one in which anything went wrong is not given out again.
"""

from __future__ import annotations

import threading

from agentrl.remote.address import Address
from agentrl.remote.child import Child


class Pool:
    """Thread-safe. A worker that is taken belongs to the taker until it is given back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[Address, list[Child]] = {}

    def take(self, address: Address) -> Child:
        """A worker that waits, else a new one. Raises `InfrastructureFault` where none can be started."""
        while True:
            with self._lock:
                idle = self._idle.get(address)
                child = idle.pop() if idle else None
            if child is None:
                return Child(address)
            if child.usable:
                child.begin_episode()
                return child
            child.kill()

    def give_back(self, child: Child) -> None:
        """The environment in it is closed."""
        if not child.fit:
            child.kill()
            return
        with self._lock:
            self._idle.setdefault(child.address, []).append(child)

    def pids(self) -> set[int]:
        """Of the workers that wait."""
        with self._lock:
            return {child.pid for children in self._idle.values() for child in children}

    def close(self) -> None:
        """End the workers that wait; those in use end when they are given back or dropped."""
        with self._lock:
            children = [child for children in self._idle.values() for child in children]
            self._idle.clear()
        for child in children:
            child.kill()


WORKERS = Pool()
"The workers of this process. A run closes it; what is left at the end of the process is killed."
