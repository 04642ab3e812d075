"""What a recipe would do and whether memory suffices, before anything is loaded.

The numbers are estimates from the model's configuration: weights, gradients, optimiser, activations, cached keys.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from agentrl.config import check_parts
from agentrl.models import resolve
from agentrl.runs.blueprint import Blueprint
from agentrl.sections import Config

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Shape:
    """What memory depends on."""

    parameters: int
    hidden: int
    layers: int
    key_value_width: int
    "Heads of keys times their size: floats per token and layer, twice."
    vocabulary: int
    intermediate: int


def forecast(blueprint: Blueprint) -> str:
    """Lines for `--dry-run`. Raises `ConfigError` where the recipe cannot run as written."""
    config, folder = blueprint.config, blueprint.folder
    check_parts(config, blueprint.host)
    blueprint.method()
    tasks = blueprint.held_out()
    rollout, training = config.rollout, config.training
    shape = model_shape(config)
    need = memory(config, shape)
    total = sum(need.values())
    free, where = _free(config)
    verdict = "fits" if total < 0.9 * free else "does NOT fit: lower micro_batch_tokens, concurrency or max_context"
    episodes = training.batches * rollout.tasks_per_batch * rollout.group_size
    lines = [
        f"would train  {config.environment.name} with {config.method.name} on the engine {config.engine.name}",
        f"model        {config.model.path or config.model.name}: {shape.parameters / 1e6:,.2f} M parameters"
        + (f", LoRA rank {config.model.lora_rank}" if config.model.lora_rank else ""),
        f"episodes     {episodes:,} ({training.batches} batches x {rollout.tasks_per_batch} tasks x "
        f"{rollout.group_size}), {training.batches * training.minibatches:,} updates",
        f"evaluation   {len(tasks)} tasks of {config.evaluation.split!r}, temperatures "
        + ", ".join(f"{t:g}" for t in config.evaluation.temperatures),
        f"memory       about {total / GIB:.1f} of {free / GIB:.1f} GiB of {where}: {verdict}",
        "             " + ", ".join(f"{name} {size / GIB:.2f}" for name, size in need.items()),
        f"folder       {folder.path}" + (" (exists: the run would go on)" if folder.recipe.exists() else ""),
    ]
    return "\n".join(lines)


def model_shape(config: Config) -> Shape:
    """From the recipe's preset, or from the model folder's `config.json`."""
    model = config.model
    if model.path is None:
        inner = 32 * round(model.hidden * 8 / 3 / 32)
        vocabulary = 200
        parameters = vocabulary * model.hidden + model.layers * (4 * model.hidden**2 + 3 * model.hidden * inner)
        return Shape(parameters, model.hidden, model.layers, model.hidden, vocabulary, inner)
    said = json.loads((resolve(model.path) / "config.json").read_text())
    hidden, layers, inner = said["hidden_size"], said["num_hidden_layers"], said["intermediate_size"]
    heads = said["num_attention_heads"]
    size = said.get("head_dim") or hidden // heads
    keys = said.get("num_key_value_heads", heads) * size
    vocabulary = said["vocab_size"]
    head = 1 if said.get("tie_word_embeddings") else 2
    layer = hidden * (2 * heads * size + 2 * keys) + 3 * hidden * inner
    return Shape(head * vocabulary * hidden + layers * layer, hidden, layers, keys, vocabulary, inner)


def memory(config: Config, shape: Shape) -> dict[str, float]:
    """Bytes by what holds them."""
    lora = config.model.lora_rank
    width = 2 if config.model.dtype == "bfloat16" and lora else 4
    trained = shape.layers * lora * 2 * (4 * shape.hidden + 3 * shape.intermediate) if lora else shape.parameters
    tokens = config.training.micro_batch_tokens
    # Kept for the backward, per token and layer; the factors are fitted to SmolLM2-135M (3 MB a token in float32).
    activations = tokens * shape.layers * (28 * shape.hidden + 6 * shape.intermediate) * width
    live = config.rollout.concurrency * config.rollout.max_context
    cache = live * shape.layers * 2 * shape.key_value_width * (2 if config.model.dtype == "bfloat16" else 4)
    return {
        "weights": float(shape.parameters * width),
        "gradients and optimiser": float(trained * 12),
        "activations": float(activations),
        "cached keys": float(min(cache, 4 * GIB) if config.engine.name == "vllm" else cache),
        "output head": float(1024 * shape.vocabulary * 4 * 2),
    }


def _free(config: Config) -> tuple[float, str]:
    """Bytes, and of what."""
    if config.model.device != "cpu" and Path("/dev/nvidiactl").exists():
        import torch

        if torch.cuda.is_available():
            return float(torch.cuda.mem_get_info()[0]), torch.cuda.get_device_name()
    return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")), "this machine's free memory"
