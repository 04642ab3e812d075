"""What vLLM's worker process learns from us: to load weights into a running model, and to show what it holds.

vLLM imports this module before it builds the model. On a CPU, and only there, it changes how linear layers are
packed: vLLM frees the original weight, into which nothing can then be loaded, and leaves the packed output head of
tied models at its old values for ever. Here originals are kept, and every load packs anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import vllm.model_executor.layers.utils as vllm_layers
from safetensors import safe_open
from vllm.platforms import current_platform

from agentrl.engines import vllm_seeds
from agentrl.engines.vllm_fingerprint import checksum, column_checksum, one_hot, probe_columns

_pack = vllm_layers.dispatch_cpu_unquantized_gemm


def _pack_and_keep(layer: torch.nn.Module, remove_weight: bool = False) -> None:
    _pack(layer, remove_weight=False)


if current_platform.is_cpu():
    # The layers import it by name at each call.
    vllm_layers.dispatch_cpu_unquantized_gemm = _pack_and_keep
    vllm_seeds.install()


class WeightExtension:
    """Mixed into vLLM's worker by `--worker-extension-cls`; answers are JSON. One worker (no tensor parallelism)."""

    model_runner: Any

    def agentrl_load(self, path: str) -> dict[str, Any]:
        """Loads a safetensors file into the model and tells which parameters it did not touch."""
        model = self.model_runner.model
        with torch.no_grad():
            loaded = model.load_weights(_read(Path(path)))
        missing = [name for name, _ in model.named_parameters() if loaded is not None and name not in loaded]
        return {"missing": missing}

    def agentrl_pack(self) -> dict[str, Any]:
        """Packs anew what a CPU computes with. Does nothing elsewhere."""
        modules = self.model_runner.model.modules()
        layers = [m for m in modules if hasattr(m, "cpu_linear") and not getattr(m, "_cpu_skip_gemm_dispatch", False)]
        for layer in layers:
            # The old packed copy goes first: both at once would double the peak.
            layer.cpu_linear = None
            _pack_and_keep(layer)
        return {"layers": len(layers)}

    def agentrl_fingerprints(self, path: str, version: int) -> dict[str, Any]:
        """Checksums by the names in the file, of what the worker holds and of what its linear layers compute with.

        Only names and shapes are read from the file.
        """
        model = self.model_runner.model
        parameters = dict(model.named_parameters(remove_duplicate=False))
        shapes = _shapes(Path(path))
        held: dict[str, str] = {}
        computed: dict[str, str] = {}
        unmapped: list[str] = []
        for name in shapes:
            target, first = _place(name, shapes, getattr(model, "packed_modules_mapping", {}), parameters)
            if target is None:
                unmapped.append(name)
                continue
            rows = slice(first, first + shapes[name][0])
            held[name] = checksum(parameters[target][rows])
            layer = model.get_submodule(target.rpartition(".")[0])
            if target.endswith(".weight") and len(shapes[name]) == 2 and not _is_embedding(layer):
                computed[name] = _computed(layer, rows, version)
        head = _head(model)
        if head is not None:
            # A tied head has no name of its own in the file; compare it with the embedding's.
            name = next((n for n in shapes if n.endswith("lm_head.weight")), None) or next(
                n for n in shapes if n.endswith("embed_tokens.weight")
            )
            computed["output head"] = _computed(head, slice(0, shapes[name][0]), version)
        return {"held": held, "computed": computed, "unmapped": unmapped}


def _read(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(path, framework="pt", device="cpu") as file:
        for name in file.keys():  # noqa: SIM118
            yield name, file.get_tensor(name)


def _shapes(path: Path) -> dict[str, list[int]]:
    with safe_open(path, framework="pt", device="cpu") as file:
        return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def _place(
    name: str, shapes: dict[str, list[int]], packed: dict[str, list[str]], parameters: dict[str, Any]
) -> tuple[str | None, int]:
    """The parameter that holds a tensor of the file, and its first row in it: vLLM fuses q, k, v and gate, up."""
    if name in parameters:
        return name, 0
    for fused, parts in packed.items():
        for index, part in enumerate(parts):
            target = name.replace(f".{part}.", f".{fused}.")
            if target != name and target in parameters:
                before = [name.replace(f".{part}.", f".{other}.") for other in parts[:index]]
                return target, sum(shapes[other][0] for other in before)
    return None, 0


def _is_embedding(layer: torch.nn.Module) -> bool:
    return not hasattr(layer, "quant_method") or "Embedding" in type(layer).__name__ or _is_head(layer)


def _is_head(layer: torch.nn.Module) -> bool:
    return type(layer).__name__ == "ParallelLMHead"


def _head(model: torch.nn.Module) -> Any:
    return next((m for m in model.modules() if _is_head(m)), None)


def _computed(layer: Any, rows: slice, version: int) -> str:
    weight = layer.weight
    width = weight.shape[1]
    inputs = one_hot(probe_columns(version, width), width, weight.dtype, weight.device)
    with torch.no_grad():
        return column_checksum(layer.quant_method.apply(layer, inputs)[:, rows])
