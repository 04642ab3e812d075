"""Weights in memory that learner and server share: one safetensors file, mapped by both and written again in place.

Names, shapes and dtypes of a file never change: others make a new file, which takes the old one's place whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from agentrl.errors import InfrastructureFault

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
Layout = Mapping[str, tuple[torch.Size, torch.dtype]]
FILE = "weights.safetensors"
SHARED_MEMORY = Path("/dev/shm")
NAMES = {dtype: name for name, dtype in DTYPES.items()}
ALIGNMENT = 64
LENGTH = 8
"Bytes before the header, which say how long it is."


class WeightBuffer:
    """The tensors of one file. What is written into them is in the file, and in every other mapping of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self.header = file.read(int.from_bytes(file.read(LENGTH), "little"))
            status = os.fstat(file.fileno())
        self.inode, self.bytes = status.st_ino, status.st_size
        whole = torch.from_file(str(path), shared=True, size=self.bytes, dtype=torch.uint8)
        start = LENGTH + len(self.header)
        self.tensors: dict[str, torch.Tensor] = {}
        for name, entry in json.loads(self.header).items():
            first, last = (start + offset for offset in entry["data_offsets"])
            self.tensors[name] = whole[first:last].view(DTYPES[entry["dtype"]]).view(entry["shape"])

    def is_current(self) -> bool:
        """Whether the file at the path is still the one that is mapped."""
        try:
            return self.path.stat().st_ino == self.inode
        except FileNotFoundError:
            return False

    def fill(self, tensors: Mapping[str, torch.Tensor]) -> set[str]:
        """From any device and in the file's dtype; the names of those that differ from what was there."""
        changed = set()
        for name, target in self.tensors.items():
            source = tensors[name].detach().to(target)
            # Ends at the first difference, so that only what stays as it is costs a pass over it.
            if not torch.equal(source, target):
                target.copy_(source)
                changed.add(name)
        return changed


def new_buffer(folders: Sequence[Path], layout: Layout) -> WeightBuffer:
    """With room for all of it, in the first of `folders` that has; older ones are removed.

    Raises `InfrastructureFault`.
    """
    for folder in folders:
        (folder / FILE).unlink(missing_ok=True)
    header = header_of(layout)
    size = LENGTH + len(header) + sum(shape.numel() * dtype.itemsize for shape, dtype in layout.values())
    path = _with_room(folders, size) / FILE
    aside = path.with_suffix(".new")
    try:
        with aside.open("wb") as file:
            file.write(len(header).to_bytes(LENGTH, "little") + header)
            file.flush()
            # Taken now: a mapped write that finds no room would end the process.
            os.posix_fallocate(file.fileno(), 0, size)
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise InfrastructureFault(f"the weights cannot be written to {path}: {error}") from error
    return WeightBuffer(path)


def header_of(layout: Layout) -> bytes:
    """What a safetensors file begins with, after its own length."""
    entries: dict[str, Any] = {}
    offset = 0
    # The widest first, so that every tensor begins at a multiple of its item's size.
    for name, (shape, dtype) in sorted(layout.items(), key=lambda item: (-item[1][1].itemsize, item[0])):
        end = offset + shape.numel() * dtype.itemsize
        entries[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries).encode()
    return header + b" " * (-(LENGTH + len(header)) % ALIGNMENT)


def buffer_folders(run: Path) -> tuple[Path, ...]:
    """Emptied folders: shared memory where there is any, named after the run so that a killed run's files are found."""
    folders = [run / "published"]
    if SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK):
        name = hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:16]
        folders.insert(0, SHARED_MEMORY / f"agentrl-{os.getuid()}-{name}")
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return tuple(folders)


def _with_room(folders: Sequence[Path], size: int) -> Path:
    """The first folder whose disk holds the file and a little more. In a container shared memory may be small."""
    free = []
    for folder in folders:
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        free.append(shutil.disk_usage(folder).free)
        if free[-1] > 1.1 * size:
            return folder
    rooms = ", ".join(f"{folder}: {room >> 20:,} MiB" for folder, room in zip(folders, free, strict=True))
    raise InfrastructureFault(
        f"the weights need {size >> 20:,} MiB, and no folder has room for them ({rooms} free). Free space, or give the "
        "container a larger /dev/shm."
    )
