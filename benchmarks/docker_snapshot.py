"""What a snapshot of a container costs: its folder as an archive, as the sandbox has it, or a commit of the container.

    python benchmarks/docker_snapshot.py [--quick] [--host ADDRESS] [--out benchmarks/results/docker_snapshot.json]

`keep` takes the snapshot, `go on` opens a session from it and runs a line. A commit needs what is kept in a writable
root, so a container with one stands beside ours, and what that root lets through is told as well: bytes that can be
written though `files` allows fewer, and what the daemon says to a limit of its own. `--host`: the daemon, else the
usual one.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
import time
from typing import Any

import docker
from conditions import conditions
from docker.errors import DockerException
from support.results import Verdict, finish, middle, options

from agentrl.plugins import load_host
from agentrl.sandbox import Limits
from agentrl.sandbox.image import NAME

LIMITS = Limits(seconds=20.0, files=16 << 20)
LINE = "len(open('kept', 'rb').read())"
_WALLS = {"network_mode": "none", "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"], "user": "12345:12345"}


def archive_of(name: str, size: int) -> bytes:
    """A tar with one file that does not compress."""
    import random

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.uid = size, 0o644, 12345
        archive.addfile(entry, io.BytesIO(random.Random(1).randbytes(size)))
    return packed.getvalue()


async def by_archive(host: str, size: int, repeats: int) -> dict[str, Any]:
    """Ours, with containers that wait, as a run has them."""
    sandbox = load_host().create("sandboxes", "docker", {"host": host, "idle": 2})
    keeps, goes, kept = [], [], b""
    for _ in range(repeats + 1):
        session = await sandbox.open(LIMITS)
        await session.run(f"import random\nopen('kept', 'wb').write(random.Random(1).randbytes({size}))")
        began = time.perf_counter()
        kept = await session.snapshot()
        keeps.append(time.perf_counter() - began)
        await session.close()
        began = time.perf_counter()
        other = await sandbox.open(LIMITS, kept)
        assert (await other.run(LINE)).stdout == f"{size}\n"
        goes.append(time.perf_counter() - began)
        await other.close()
    await sandbox.close()
    return {"keep_seconds": middle(keeps[1:]), "go_on_seconds": middle(goes[1:]), "bytes": len(kept)}


def by_commit(client: Any, size: int, repeats: int) -> dict[str, Any]:
    """A writable root; what goes on is a new container of the committed image, up to its first line."""
    keeps, goes = [], []
    line = ["python3", "-I", "-c", f"print({LINE.replace('kept', '/kept')})"]
    for _ in range(repeats):
        made = client.containers.create(NAME, ["sleep", "600"], **_WALLS)
        made.put_archive("/", archive_of("kept", size))
        made.start()
        began = time.perf_counter()
        image = made.commit()
        keeps.append(time.perf_counter() - began)
        made.remove(force=True)
        began = time.perf_counter()
        other = client.containers.create(image.id, line, environment={"LD_LIBRARY_PATH": "/python/lib"}, **_WALLS)
        other.start()
        other.wait()
        assert other.logs() == f"{size}\n".encode(), other.logs()
        goes.append(time.perf_counter() - began)
        other.remove(force=True)
        client.images.remove(image.id)
    return {"keep_seconds": middle(keeps), "go_on_seconds": middle(goes)}


def facts(client: Any) -> dict[str, Any]:
    """What stands against a commit, each tried."""
    told: dict[str, Any] = {"storage_driver": client.info()["Driver"]}
    beyond = 4 * LIMITS.files
    flood = ["python3", "-I", "-c", f"print(open('/tmp/flood', 'wb').write(bytes({beyond})))"]
    given: dict[str, Any] = {**_WALLS, "environment": {"LD_LIBRARY_PATH": "/python/lib"}}
    given.pop("user")
    made = client.containers.create(NAME, flood, **given)
    made.start()
    made.wait()
    told["writable_root_took_bytes"] = int(made.logs() or 0)
    told["allowed_bytes"] = LIMITS.files
    made.remove(force=True)
    try:
        client.containers.create(NAME, flood, storage_opt={"size": "16m"}, **given).remove(force=True)
        told["limit_of_the_root"] = "taken"
    except DockerException as error:
        told["limit_of_the_root"] = str(error)
    write = ["python3", "-I", "-c", "open('/tmp/kept', 'w').write('x'); import time; time.sleep(600)"]
    made = client.containers.create(NAME, write, read_only=True, tmpfs={"/tmp": "size=1m,mode=1777"}, **given)
    made.start()
    while made.exec_run(["cat", "/tmp/kept"]).exit_code:
        time.sleep(0.05)
    told["commit_of_ours_holds"] = _held(client, made)
    try:
        made.put_archive("/", archive_of("kept", 10))
        told["copy_into_a_read_only_root"] = "taken"
    except DockerException as error:
        told["copy_into_a_read_only_root"] = str(error)
    made.remove(force=True)
    return told


def _held(client: Any, made: Any) -> bool:
    """Whether the folder of a session is in a commit of its container."""
    image = made.commit()
    other = client.containers.create(image.id, ["ls", "/tmp"])
    other.start()
    other.wait()
    held = b"kept" in other.logs()
    other.remove(force=True)
    client.images.remove(image.id)
    return held


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--host", default="", help="the daemon's address")
    chosen = parser.parse_args()
    before = conditions()
    repeats = 1 if chosen.quick else 5
    client = docker.DockerClient(base_url=chosen.host) if chosen.host else docker.from_env()
    measured: dict[str, Any] = {"facts": {}}
    for size in (10_000, 8_000_000):
        archive = asyncio.run(by_archive(chosen.host, size, repeats))
        measured[f"{size:,} bytes"] = {"archive": archive, "commit": by_commit(client, size, repeats)}
    measured["facts"] = facts(client)
    client.close()
    print(f"{'':18}{'':10}{'keep ms':>10}{'go on ms':>10}")
    verdicts = []
    for size_name, ways in measured.items():
        if size_name == "facts":
            continue
        both = {}
        for way, times in ways.items():
            keep, on = (1e3 * times[key]["median"] for key in ("keep_seconds", "go_on_seconds"))
            both[way] = keep + on
            print(f"{size_name:18}{way:10}{keep:10.1f}{on:10.1f}")
        ratio = both["archive"] / both["commit"]
        verdicts.append(
            Verdict(f"an archive of {size_name} against a commit, there and back", ratio, "at most", 1.0, "x")
        )
    for name, value in measured["facts"].items():
        print(f"{name}: {value}")
    finish(chosen, before, measured, verdicts)


if __name__ == "__main__":
    main()
