"""A small image made from this machine's own Python and a shell, for daemons that reach no registry.

It holds an interpreter, its standard library and the libraries that these load; nothing that was installed with pip.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NAME = "agentrl-sandbox:py" + ".".join(map(str, sys.version_info[:3]))
_PROGRAMS = (
    "sh",
    "bash",
    "ls",
    "cat",
    "head",
    "tail",
    "echo",
    "sleep",
    "yes",
    "grep",
    "sed",
    "mkdir",
    "rm",
    "cp",
    "mv",
)
_LEFT_OUT = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "__pycache__",
    "idlelib",
    "tkinter",
    "ensurepip",
    "turtledemo",
}


def make_image(client: Any, name: str = NAME) -> None:
    """Import it into the daemon of `client`. A few seconds, about 60 MB."""
    with tempfile.TemporaryFile() as file:
        write_root(file)
        file.seek(0)
        repository, _, tag = name.partition(":")
        client.api.import_image(src=file, repository=repository, tag=tag)


def write_root(file: Any) -> None:
    """A root file system as a tar: `/python`, programs in `/usr/bin`, libraries where the loader looks for them."""
    base = Path(sys.base_prefix)
    real = Path(os.path.realpath(sys.executable))
    library = Path(os.path.realpath(os.__file__)).parent
    programs = [Path(found) for name in _PROGRAMS if (found := shutil.which(name, path="/usr/bin:/bin"))]
    extensions = sorted((library / "lib-dynload").glob("*.so"))
    with tarfile.open(fileobj=file, mode="w") as tar:
        for folder in ("tmp", "proc", "dev", "sys", "etc", "usr", "usr/bin", "python", "python/bin", "python/lib"):
            _add_folder(tar, folder)
        tar.add(real, f"python/bin/{real.name}", filter=_anyones)
        _add_link(tar, "usr/bin/python3", f"/python/bin/{real.name}")
        _add_link(tar, "python/bin/python3", real.name)
        tar.add(library, f"python/lib/{library.name}", filter=_wanted)
        _add_link(tar, "bin", "usr/bin")
        for program in programs:
            tar.add(os.path.realpath(program), f"usr/bin/{program.name}", filter=_anyones)
        for needed in sorted(_libraries([real, *programs, *extensions])):
            inside = needed.relative_to(base).as_posix() if needed.is_relative_to(base) else ""
            place = f"python/{inside}" if inside else needed.as_posix().lstrip("/")
            tar.add(os.path.realpath(needed), place, filter=_anyones)


def _libraries(files: Iterable[Path]) -> set[Path]:
    """What the loader would load for them."""
    found: set[Path] = set()
    for file in files:
        told = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False).stdout
        found |= {Path(path) for path in re.findall(r"(?:=> |^\s*)(/\S+) \(0x", told, re.MULTILINE)}
    return found


def _wanted(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    parts = set(Path(info.name).parts)
    config = any(part.startswith("config-") for part in parts)
    return None if parts & _LEFT_OUT or config or info.name.endswith(".a") else _anyones(info)


def _anyones(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Owned by root, readable by everyone, never setuid."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mode = 0o755 if info.isdir() or info.mode & 0o111 else 0o644
    return info


def _add_folder(tar: tarfile.TarFile, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
    tar.addfile(info)


def _add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    tar.addfile(info)
