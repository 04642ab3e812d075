"""The file of a trained step model: its tensors by name, and what they belong to.

Rule: it is there whole or not at all, and nothing in it is pickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from agentrl.errors import StoreError

STATE = "state.safetensors"
FORMAT = "1"
_WEIGHT, _ADAM = "weight.", "adam."


@dataclass(frozen=True, slots=True, eq=False)
class StepModelState:
    """What `write` puts into a folder."""

    weights: Mapping[str, Tensor]
    "Of what is trained, by parameter name."
    moments: Mapping[str, Mapping[str, Tensor]]
    "The optimizer's, by parameter name; empty before the first fit."
    fits: int
    "Calls of `fit` behind it."
    trunk: str
    "What tells the frozen trunk under a head from another; empty where the trunk is among `weights`."


def write(folder: Path, state: StepModelState) -> None:
    """Raises `StoreError` where the disk refuses; what was there stays."""
    tensors = {f"{_WEIGHT}{name}": tensor for name, tensor in state.weights.items()}
    for name, moments in state.moments.items():
        tensors |= {f"{_ADAM}{name}.{key}": value for key, value in moments.items()}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"format": FORMAT, "fits": json.dumps(state.fits), "trunk": state.trunk}
    aside = folder / f".{STATE}.{os.getpid()}.writing"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        data = safetensors.torch.save(plain, metadata)
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(folder / STATE)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise StoreError(f"{folder / STATE} cannot be written: {error}. Free space, then resume.") from error


def read(folder: Path) -> StepModelState:
    """What `write` wrote, bit for bit. Raises `StoreError` where it is torn or of another format."""
    path = folder / STATE
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise StoreError(f"{path} is not a saved reward model: {error}. Take another checkpoint.") from error
    if metadata.get("format") != FORMAT:
        raise StoreError(
            f"{path} is of format {metadata.get('format')} and {FORMAT} is read here; use the version of agentrl that "
            "wrote it."
        )
    weights = {name.removeprefix(_WEIGHT): tensor for name, tensor in stored.items() if name.startswith(_WEIGHT)}
    moments: dict[str, dict[str, Tensor]] = {}
    for name, tensor in stored.items():
        if name.startswith(_ADAM):
            parameter, _, key = name.removeprefix(_ADAM).rpartition(".")
            moments.setdefault(parameter, {})[key] = tensor
    return StepModelState(weights, moments, json.loads(metadata["fits"]), metadata["trunk"])
