"""Containers as sandboxes: what a kept one remembers (nothing), what is shared, and what is removed in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from agentrl.errors import InfrastructureFault
from agentrl.plugins import load_host
from agentrl.sandbox import Limits
from agentrl.sandbox.guest import Ending

LIMITS = Limits(seconds=5.0, memory=96 << 20, files=4 << 20)


@pytest.fixture
async def sandbox(docker_host: str) -> AsyncIterator[Any]:
    made = load_host().create("sandboxes", "docker", {"host": docker_host, "idle": 1})
    yield made
    await made.close()


def ours(sandbox: Any) -> set[str]:
    return {container.id for container in sandbox._made}


async def until(holds: Callable[[], bool]) -> None:
    """What happens while nobody waits; the test's own time ends it."""
    while not holds():  # noqa: ASYNC110 (nobody tells what it waits for)
        await asyncio.sleep(0.01)


async def test_a_kept_container_begins_anew(sandbox: Any) -> None:
    first = await sandbox.open(LIMITS)
    await first.run("x = 1\nopen('mine', 'w').write('x')\nimport subprocess\nsubprocess.Popen(['sleep', '99'])")
    assert (await first.command("ls")).stdout == "mine\n"
    kept = ours(sandbox)
    await first.close()
    second = await sandbox.open(LIMITS)
    assert ours(sandbox) == kept
    assert (await second.run("import os\nos.listdir('.'), 'x' in globals()")).stdout == "([], False)\n"
    await second.close()


class Unseen:
    """A container as it was seen last, which has ended since."""

    status = "running"

    def __init__(self, container: Any) -> None:
        self.attrs, self.kill = container.attrs, container.kill

    def reload(self) -> None:
        pass


async def test_a_worker_that_has_ended_by_itself_is_no_fault_and_its_container_is_kept(
    sandbox: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from agentrl.sandbox.docker import _stop

    session = await sandbox.open(LIMITS)
    (container,) = sandbox._made
    # Between runs it stands still, and would not see that its line is closed.
    session._freezer.thaw()
    session.guest._line.close()
    await asyncio.to_thread(container.wait, timeout=60)
    assert _stop(Unseen(container)) == Ending()
    await session.close()
    again = await sandbox.open(LIMITS)
    assert sandbox._made == {container} and (await again.run("6 * 7")).stdout == "42\n"
    await again.close()
    assert not caplog.records


async def test_who_is_cancelled_while_a_container_starts_leaves_it_to_the_next(sandbox: Any) -> None:
    opening = asyncio.create_task(sandbox.open(LIMITS))
    await until(lambda: bool(sandbox._made))
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    kept = ours(sandbox)
    session = await sandbox.open(LIMITS)
    assert len(kept) == 1 and ours(sandbox) == kept
    await session.close()


async def test_sessions_live_side_by_side_and_leave_no_container(sandbox: Any) -> None:
    sessions = await asyncio.gather(*(sandbox.open(LIMITS) for _ in range(3)))
    told = await asyncio.gather(*(session.run(f"x = {n}\nx") for n, session in enumerate(sessions)))
    assert [ran.stdout for ran in told] == ["0\n", "1\n", "2\n"]
    await asyncio.gather(*(session.close() for session in sessions))
    await until(lambda: len(ours(sandbox)) == 1)
    await sandbox.close()
    assert ours(sandbox) == set()


async def test_memory_is_that_of_all_processes_together(sandbox: Any) -> None:
    session = await sandbox.open(LIMITS)
    code = (
        "import os\nfor n in range(3):\n    if os.fork() == 0:\n        block = bytearray(60_000_000)\n"
        "        import time\n        time.sleep(1)\n        os._exit(0)\n[os.wait()[1] for n in range(3)]"
    )
    ran = await session.run(code)
    assert ran.lost or "9" in ran.stdout, "nobody was killed for want of memory"
    assert (await session.run("6 * 7")).stdout == "42\n"
    await session.close()


async def test_what_a_killed_process_left_is_reaped(sandbox: Any, docker_host: str) -> None:
    import docker
    from docker.errors import NotFound

    from agentrl.sandbox.docker import LABEL

    session = await sandbox.open(LIMITS)
    owner = next(iter(sandbox._made)).labels[LABEL]
    host = owner.split(":")[0]
    client = docker.DockerClient(base_url=docker_host) if docker_host else docker.from_env()
    image = sandbox._image
    dead, alive, foreign = (
        client.containers.create(image, ["sleep", "9"], labels={LABEL: label}).id
        for label in (f"{host}:4194304:1", owner, "another-machine:1:1")
    )
    other = load_host().create("sandboxes", "docker", {"host": docker_host})
    again = await other.open(LIMITS)
    with pytest.raises(NotFound):
        client.containers.get(dead)
    for kept in (alive, foreign):
        client.containers.get(kept).remove(force=True)
    assert (await session.run("1")).stdout == "1\n"
    await again.close()
    await session.close()
    await other.close()
    client.close()


async def test_a_container_that_is_removed_under_a_run_is_a_fault_and_the_next_session_is_another(sandbox: Any) -> None:
    session = await sandbox.open(replace(LIMITS, seconds=60.0))
    (container,) = sandbox._made
    run = asyncio.create_task(session.run("import time\ntime.sleep(50)"))
    await asyncio.to_thread(container.remove, force=True)
    with pytest.raises(InfrastructureFault, match="a session of the sandbox 'docker' is gone"):
        await run
    await session.close()
    await until(lambda: container.id not in ours(sandbox))
    again = await sandbox.open(LIMITS)
    assert (await again.run("6 * 7")).stdout == "42\n"
    await again.close()


async def test_a_daemon_or_an_image_that_is_not_there_is_said(docker_host: str) -> None:
    lost = load_host().create("sandboxes", "docker", {"host": docker_host, "image": "no-such-image:1"})
    with pytest.raises(InfrastructureFault, match=r"the daemon has no image 'no-such-image:1'\. Run: docker pull"):
        await lost.open(LIMITS)
