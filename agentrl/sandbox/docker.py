"""The sandbox `docker`: a container for each session, without network, capabilities or a disk to write to.

A container is used by one session; one that is kept for another was stopped and started anew, which leaves nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from agentrl.errors import InfrastructureFault, MissingDependencyError
from agentrl.sandbox.freezer import Freezer
from agentrl.sandbox.guest import WORKER, Ending, GuestSession, settings
from agentrl.sandbox.image import NAME, make_image
from agentrl.sandbox.protocol import Abilities, Limits, most_files

try:
    import docker
    from docker.errors import APIError, DockerException, ImageNotFound
except ImportError as error:
    raise MissingDependencyError(
        "the sandbox 'docker' needs the package docker, which is not installed. "
        'Run: pip install "agentrl-framework[docker]"'
    ) from error

T = TypeVar("T")

_log = logging.getLogger(__name__)
LABEL = "agentrl.sandbox"
"Its value names the process that owns a container, so that another one can reap what a killed one left."
_OWN = 3
"Processes and threads that are ours: docker's init, and the threads of the worker."
_FIRST_USER, _USERS = 1 << 20, 1 << 30
_CHUNK = 1 << 16
_Ready: TypeAlias = tuple[Any, socket.socket]
"A container whose worker runs, and the line to it."
_AT_ONCE = 8
"Containers that are started or removed at once."
_NOT_RUNNING = 409
"What the daemon answers to who kills a container that has ended."
_ENV = {"HOME": "/tmp", "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "2", "LD_LIBRARY_PATH": "/python/lib"}


class Docker:
    """Implements `protocol.Sandbox`. `memory` holds for all processes of a session together."""

    abilities = Abilities(commands=True, snapshots="files")

    def __init__(self, *, image: str = NAME, host: str = "", idle: int = 4) -> None:
        """image: one with a `python3`; the default is made from this machine's Python where it is not there yet.

        host: the daemon's address, else what the environment says. idle: containers kept for further sessions.
        """
        if idle < 0:
            raise ValueError(f"idle is {idle}; at least 0 containers are kept.")
        self._image, self._host, self._idle = image, host, idle
        self._client: Any = None
        self._lock = threading.Lock()
        self._waiting: dict[Limits, list[Future[_Ready | None]]] = {}
        "Containers that are ready or will be; None for one that could not be started anew."
        self._behind: ThreadPoolExecutor | None = None
        self._made: set[Any] = set()
        self._end = weakref.finalize(self, _remove_all, self._made)

    async def open(self, limits: Limits, snapshot: bytes | None = None) -> GuestSession:
        async def start() -> DockerGuest:
            return await self._start(limits)

        session = GuestSession("docker", limits, start)
        await session.begin()
        if snapshot is not None:
            await session.restore(snapshot)
        return session

    async def close(self) -> None:
        waiting = [kept for several in self._waiting.values() for kept in several]
        self._waiting.clear()
        for kept in waiting:
            with contextlib.suppress(InfrastructureFault):
                if (ready := await _result(kept)) is not None:
                    ready[1].close()
                    self._later(self._remove, ready[0])
        behind, self._behind = self._behind, None
        if behind is not None:
            await asyncio.to_thread(behind.shutdown)
        if not self._made and self._client is not None:
            self._client.close()
            self._client = None

    async def _start(self, limits: Limits) -> DockerGuest:
        while True:
            kept = self._next(limits) or self._later(self._create, limits)
            try:
                ready = await _result(kept)
            except asyncio.CancelledError:
                self._waiting.setdefault(limits, []).append(kept)
                raise
            if ready is not None:
                return DockerGuest(self, ready[0], limits, ready[1])

    def _next(self, limits: Limits) -> Future[_Ready | None] | None:
        """One that is ready, the first of them: its Python is up. Else one that will be."""
        waiting = self._waiting.get(limits, [])
        for kept in sorted(waiting, key=lambda kept: not kept.done()):
            waiting.remove(kept)
            return kept
        return None

    async def take_back(self, container: Any, limits: Limits) -> Ending:
        """Stop it with all that runs in it, and keep or remove it; what had ended it already."""
        return await asyncio.shield(self._take_back(container, limits))

    async def _take_back(self, container: Any, limits: Limits) -> Ending:
        ending = await asyncio.to_thread(_stop, container)
        if ending.fault or sum(map(len, self._waiting.values())) >= self._idle:
            self._later(self._remove, container)
        else:
            self._waiting.setdefault(limits, []).append(self._later(self._begin_anew, container))
        return ending

    def _later(self, work: Callable[[Any], T], about: Any) -> Future[T]:
        """Have it done whether or not somebody waits."""
        if self._behind is None:
            self._behind = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="agentrl-containers")
        return self._behind.submit(work, about)

    def _begin_anew(self, container: Any) -> _Ready | None:
        try:
            container.wait(timeout=10)
            return container, _begin(container)
        except Exception as error:
            # Whatever is wrong with it: it is not used again.
            _log.warning("a container is removed, not kept: %s", error)
        self._remove(container)
        return None

    def _create(self, limits: Limits) -> _Ready | None:
        with self._lock:
            client = self._connect()
        container = None
        try:
            container = self._made_of(client, limits)
            return container, _begin(container)
        except (DockerException, OSError) as error:
            if container is not None:
                self._remove(container)
            raise InfrastructureFault(f"the sandbox 'docker' cannot start a container: {error}") from error

    def _made_of(self, client: Any, limits: Limits) -> Any:
        user = _FIRST_USER + secrets.randbelow(_USERS)
        told = settings(limits, processes=limits.processes + _OWN, walls=True)
        container = client.containers.create(
            self._image,
            ["python3", "-I", "-c", WORKER, told],
            stdin_open=True,
            init=True,
            # A user that nobody is and no other session has.
            user=f"{user}:{user}",
            hostname="sandbox",
            environment=_ENV,
            working_dir="/tmp",
            network_mode="none",
            ipc_mode="private",
            shm_size=1 << 20,
            read_only=True,
            tmpfs={"/tmp": f"size={limits.files},nr_inodes={most_files(limits)},mode=1777,nosuid,nodev"},
            # What a session says is for its line alone: the daemon would write it to this machine's disk, without end.
            log_config={"Type": "none"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit=limits.memory + limits.files,
            memswap_limit=limits.memory + limits.files,
            pids_limit=limits.processes + _OWN,
            labels={LABEL: _owner()},
        )
        self._made.add(container)
        return container

    def _connect(self) -> Any:
        if self._client is None:
            try:
                client = docker.DockerClient(base_url=self._host) if self._host else docker.from_env()
                client.ping()
            except (DockerException, OSError) as error:
                raise InfrastructureFault(
                    f"the sandbox 'docker' reaches no daemon at {self._host or 'the usual place'}: {error}. "
                    'Start one (as root: dockerd), or name it: host = "unix:///...".'
                ) from error
            try:
                _reap(client)
                self._find_image(client)
            except BaseException:
                client.close()
                raise
            self._client = client
        return self._client

    def _find_image(self, client: Any) -> None:
        try:
            client.images.get(self._image)
        except ImageNotFound as error:
            if self._image != NAME:
                raise InfrastructureFault(
                    f"the daemon has no image {self._image!r}. Run: docker pull {self._image}; or name no image, "
                    "and one is made from this machine's Python."
                ) from error
            make_image(client)

    def _remove(self, container: Any) -> None:
        self._made.discard(container)
        _remove(container)


class DockerGuest:
    """Implements `guest.Guest`: the worker in a container, over what it is attached to."""

    def __init__(self, sandbox: Docker, container: Any, limits: Limits, line: socket.socket) -> None:
        self._sandbox, self._container, self._limits, self._line = sandbox, container, limits, line
        self._inbox = bytearray()
        self._ending: Ending | None = None

    async def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self._line, data)

    async def receive(self) -> bytes:
        """Docker sends pieces with a head of eight bytes: the stream, three zeros, the size."""
        found = b""
        while not found:
            try:
                data = await asyncio.get_running_loop().sock_recv(self._line, _CHUNK)
            except OSError:
                return b""
            if not data:
                return b""
            self._inbox += data
            while len(self._inbox) >= 8:
                end = 8 + int.from_bytes(self._inbox[4:8], "big")
                if len(self._inbox) < end:
                    break
                found += self._inbox[8:end] if self._inbox[0] == 1 else b""
                del self._inbox[:end]
            await asyncio.sleep(0)
        return found

    def freezer(self) -> Freezer | None:
        # The daemon may be on another machine, or its containers' processes not ours to see.
        with contextlib.suppress(InfrastructureFault):
            return Freezer(self._container.attrs["State"]["Pid"], WORKER)
        return None

    async def end(self) -> Ending:
        if self._ending is None:
            self._ending = Ending()
            self._line.close()
            self._ending = await self._sandbox.take_back(self._container, self._limits)
        return self._ending


async def _result(kept: Future[T]) -> T:
    """Waited for without owning it: who is cancelled here leaves it as it is, for another, also of another loop."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def tell(_: Future[T]) -> None:
        # The loop may be closed by now.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(done.set)

    kept.add_done_callback(tell)
    await done.wait()
    return kept.result()


def _stop(container: Any) -> Ending:
    """Kill all that runs in it; what had ended it already."""
    ending = _ending(container)
    if ending.fault or container.status != "running":
        return ending
    try:
        container.kill()
    except Exception as error:
        # A worker ends itself when its line is closed, so it may be gone by now.
        if not isinstance(error, APIError) or error.status_code != _NOT_RUNNING:
            return Ending(fault=f"its container cannot be stopped ({error})")
    return ending


def _ending(container: Any) -> Ending:
    """What the daemon knows of it. Nothing that runs inside can remove a container or stop the daemon."""
    try:
        container.reload()
    except Exception as error:
        return Ending(fault=f"the daemon knows nothing of its container any more ({error})")
    if container.status in ("removing", "dead"):
        return Ending(fault="its container was removed by somebody else")
    return Ending("memory" if container.attrs["State"].get("OOMKilled") else "")


def _begin(container: Any) -> socket.socket:
    """Start it, attached from its first word on."""
    attached = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    line = socket.socket(fileno=os.dup(attached.fileno()))
    # The package keeps the connection behind the file that it hands out.
    attached._response.close()
    attached.close()
    line.setblocking(False)
    container.start()
    container.reload()
    return line


def _owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{_born(os.getpid())}"


def _born(pid: int) -> str:
    """When a process began, in ticks since the machine did; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _reap(client: Any) -> None:
    """Remove what processes of this machine left that are no more."""
    for container in client.containers.list(all=True, filters={"label": LABEL}):
        host, _, rest = container.labels[LABEL].partition(":")
        pid, _, born = rest.partition(":")
        if host == socket.gethostname() and pid.isdigit() and _born(int(pid)) != born:
            _remove(container)


def _remove(container: Any) -> None:
    # The daemon may be gone, or have removed it already.
    with contextlib.suppress(Exception):
        container.remove(force=True)


def _remove_all(containers: set[Any]) -> None:
    for container in list(containers):
        _remove(container)
