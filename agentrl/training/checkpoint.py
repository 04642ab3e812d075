"""Checkpoints of a learner: everything that its next update depends on.

Rule: a folder is there whole or not at all (written aside, synced, renamed), and nothing in it is pickled.

    model/      config, merged weights, tokenizer: `AutoModelForCausalLM.from_pretrained` loads it
    adapter/    LoRA adapters in float32 in peft's format, where there are any
    state.safetensors   Adam's moments by parameter name, torch's random state
    state.json          version, counters, and what the tensors belong to
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from agentrl.errors import StoreError
from agentrl.training import weights

if TYPE_CHECKING:
    from agentrl.training.learner import TorchLearner

FORMAT = 1
MODEL, ADAPTER, TENSORS, STATE = "model", "adapter", "state.safetensors", "state.json"
MODEL_WEIGHTS, ADAPTER_WEIGHTS = f"{MODEL}/model.safetensors", f"{ADAPTER}/adapter_model.safetensors"
TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
)


def save(learner: TorchLearner, folder: Path) -> None:
    """Replaces `folder` if it exists. Raises `StoreError` where the disk refuses."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.writing")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        _write_model(learner, aside / MODEL)
        if learner.settings.lora:
            _write_adapter(learner, aside / ADAPTER)
        save_file(_state_tensors(learner), aside / TENSORS)
        state = {
            "format": FORMAT,
            "version": learner.version,
            "skipped_in_a_row": learner.skipped_in_a_row,
            "learning_rate": learner.optimizer.param_groups[0]["lr"],
            "trained": list(learner.trained),
            "objective": learner.objective_state(),
        }
        (aside / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        _publish(aside, folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise StoreError(
            f"the checkpoint {folder} could not be written: {error}. Nothing was replaced; free space or choose "
            "another folder."
        ) from error


def load(learner: TorchLearner, folder: Path) -> None:
    """Bit for bit what was saved. Raises `StoreError` where the folder is torn or of another model."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
        stored = load_file(folder / (ADAPTER_WEIGHTS if learner.settings.lora else MODEL_WEIGHTS))
    except (OSError, ValueError, SafetensorError) as error:
        raise StoreError(f"{folder} is not a whole checkpoint: {error}. Take another one.") from error
    if state["format"] != FORMAT or state["trained"] != list(learner.trained):
        raise StoreError(
            f"{folder} (format {state['format']}) holds {len(state['trained'])} trained tensors and the learner trains "
            f"{len(learner.trained)} under other names; resume with the model and the LoRA settings it was saved with."
        )
    current = weights.adapters(learner.model) if learner.settings.lora else weights.merged(learner.model)
    if set(stored) != set(current) or any(stored[name].shape != current[name].shape for name in stored):
        different = sorted(set(stored) ^ set(current))[:3]
        raise StoreError(f"{folder} has weights of another model (such as {different}); resume with the same model.")
    with torch.no_grad():
        for name, tensor in stored.items():
            current[name].copy_(tensor)
    learner.optimizer.state.clear()
    for name, parameter in learner.trained.items():
        prefix = f"adam.{name}."
        moments = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if moments:
            # Adam keeps its step count on the CPU and its moments beside the parameter.
            learner.optimizer.state[parameter] = {
                key: value.clone() if key == "step" else value.to(parameter.device) for key, value in moments.items()
            }
    for group in learner.optimizer.param_groups:
        group["lr"] = state["learning_rate"]
    learner.version = state["version"]
    learner.skipped_in_a_row = state["skipped_in_a_row"]
    learner.restore_objective(state.get("objective", {}))
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])


def _write_model(learner: TorchLearner, folder: Path) -> None:
    folder.mkdir()
    base = weights.base_model(learner.model)
    config = copy.deepcopy(base.config)
    # What `save_pretrained` of a model would note; engines choose their code by it.
    config.architectures, config.dtype = [type(base).__name__], base.dtype
    config.save_pretrained(folder)
    if base.generation_config is not None:
        base.generation_config.save_pretrained(folder)
    save_file(_plain(learner.named_tensors()), folder / "model.safetensors", metadata={"format": "pt"})
    if learner.source is not None:
        for pattern in TOKENIZER_FILES:
            for path in sorted(learner.source.glob(pattern)):
                shutil.copy(path, folder / path.name)


def _write_adapter(learner: TorchLearner, folder: Path) -> None:
    folder.mkdir()
    learner.model.peft_config[weights.ADAPTER].save_pretrained(folder)
    save_file(_plain(weights.adapters(learner.model)), folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _state_tensors(learner: TorchLearner) -> dict[str, Tensor]:
    tensors = {
        f"adam.{name}.{key}": value
        for name, parameter in learner.trained.items()
        for key, value in learner.optimizer.state.get(parameter, {}).items()
    }
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    return _plain(tensors)


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _publish(aside: Path, folder: Path) -> None:
    """Sync every file and folder, then rename; an older checkpoint of the same name goes last."""
    for path in [*sorted(aside.rglob("*")), aside]:
        _sync(path)
    old = aside.with_suffix(".old")
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
