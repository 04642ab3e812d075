"""What vLLM's worker process learns from us: to load weights into a running model, and to show what it holds.

vLLM imports this module before it builds the model. On a CPU, and only there, it changes how linear layers are
packed: vLLM frees the original weight, into which nothing can then be loaded, and leaves the packed output head of
tied models at its old values for ever. Here originals are kept, and every load packs anew.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import vllm.model_executor.layers.utils as vllm_layers
from vllm.platforms import current_platform

from agentrl.engines import vllm_seeds
from agentrl.engines.vllm_buffer import WeightBuffer
from agentrl.engines.vllm_fingerprint import checksum, column_checksum, one_hot, probe_columns

_pack = vllm_layers.dispatch_cpu_unquantized_gemm


def _pack_and_keep(layer: torch.nn.Module, remove_weight: bool = False) -> None:
    _pack(layer, remove_weight=False)


if current_platform.is_cpu():
    # The layers import it by name at each call.
    vllm_layers.dispatch_cpu_unquantized_gemm = _pack_and_keep
    vllm_seeds.install()


@dataclass(frozen=True, slots=True)
class Place:
    """Where the model holds a tensor of the buffer."""

    target: str
    "The parameter, in which it is these rows."
    rows: slice
    tensor: torch.Tensor


class WeightExtension:
    """Mixed into vLLM's worker by `--worker-extension-cls`; answers are JSON. One worker (no tensor parallelism)."""

    model_runner: Any
    agentrl_buffer: WeightBuffer | None = None

    def agentrl_install(self, path: str, names: list[str] | None, version: int) -> dict[str, Any]:
        """Loads, packs and shows, in one call: on a CPU each call waits for the engine's loop to come round.

        `names` None loads all; where the model has more parameters than that, `missing` names them and nothing is
        packed or shown.
        """
        answer = self.agentrl_load(path, names)
        if names is None and answer["missing"]:
            return {"missing": answer["missing"], "held": {}, "computed": {}, "unmapped": []}
        places = self._agentrl_places(path)
        # Sampling is held, so that the sampler's core is free for packing too.
        with ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)) // torch.get_num_threads())) as pool:
            packing = [pool.submit(_pack_anew, layer) for layer in self._agentrl_packed(answer["written"])]
            held = _held(places)
            for one in packing:
                one.result()
        return {"missing": [], "held": held, **self._agentrl_computed(places, version)}

    def agentrl_load(self, path: str, names: list[str] | None = None) -> dict[str, Any]:
        """Loads these tensors of a buffer, or all; tells which parameters of the model were written and which not."""
        model = self.model_runner.model
        tensors = self._agentrl_tensors(path)
        with torch.no_grad():
            loaded = model.load_weights((name, tensors[name]) for name in (tensors if names is None else names))
        every = [name for name, _ in model.named_parameters()]
        written = [name for name in every if loaded is None or name in loaded]
        return {"written": written, "missing": [] if loaded is None else sorted(set(every) - set(written))}

    def agentrl_fingerprints(self, path: str, version: int) -> dict[str, Any]:
        """Checksums by the names in the buffer, of what the worker holds and of what its linear layers compute with.

        Only names and shapes are taken from the buffer.
        """
        places = self._agentrl_places(path)
        return {"held": _held(places), **self._agentrl_computed(places, version)}

    def agentrl_requests(self) -> dict[str, Any]:
        """Of every request that the worker keeps, how many tokens it has computed."""
        kept = self.model_runner.requests.values()
        return {"computed": [int(request.num_computed_tokens) for request in kept]}

    def _agentrl_packed(self, written: list[str]) -> list[Any]:
        """Layers with a copy, on a CPU, of one of these parameters; the largest first, that none is left at the end."""
        model = self.model_runner.model
        # By identity: a tied head has the embedding's parameter under another name.
        parameters = {id(model.get_parameter(name)) for name in written}
        layers = [layer for layer in model.modules() if _is_packed(layer) and id(layer.weight) in parameters]
        return sorted(layers, key=lambda layer: -layer.weight.numel())

    def _agentrl_places(self, path: str) -> dict[str, Place | None]:
        model = self.model_runner.model
        parameters = dict(model.named_parameters(remove_duplicate=False))
        fused = getattr(model, "packed_modules_mapping", {})
        shapes = {name: tensor.shape for name, tensor in self._agentrl_tensors(path).items()}
        places: dict[str, Place | None] = {}
        for name, shape in shapes.items():
            target, first = _parameter_of(name, shapes, fused, parameters)
            rows = slice(first, first + shape[0])
            places[name] = None if target is None else Place(target, rows, parameters[target][rows])
        return places

    def _agentrl_computed(self, places: Mapping[str, Place | None], version: int) -> dict[str, Any]:
        """One after the other: vLLM's matrix products share memory of the process and go wrong side by side."""
        model = self.model_runner.model
        computed: dict[str, str] = {}
        columns: dict[Any, torch.Tensor] = {}
        for name, place in places.items():
            if place is None:
                continue
            layer = model.get_submodule(place.target.rpartition(".")[0])
            if place.target.endswith(".weight") and place.tensor.ndim == 2 and not _is_embedding(layer):
                # Several names are rows of one layer.
                if layer not in columns:
                    columns[layer] = _columns(layer, version)
                computed[name] = column_checksum(columns[layer][place.rows])
        head = _head(model)
        if head is not None:
            # A tied head has no name of its own in the buffer; compare it with the embedding's.
            name = next((n for n in places if n.endswith("lm_head.weight")), None) or next(
                n for n in places if n.endswith("embed_tokens.weight")
            )
            published = places[name]
            rows = slice(None) if published is None else slice(0, len(published.tensor))
            computed["output head"] = column_checksum(_columns(head, version)[rows])
        return {"computed": computed, "unmapped": [name for name, place in places.items() if place is None]}

    def _agentrl_tensors(self, path: str) -> Mapping[str, torch.Tensor]:
        """The mapping is kept from publish to publish: to touch its pages anew takes longer than to copy them."""
        buffer = self.agentrl_buffer
        if buffer is None or buffer.path != Path(path) or not buffer.is_current():
            buffer = self.agentrl_buffer = WeightBuffer(Path(path))
        return buffer.tensors


def _parameter_of(
    name: str, shapes: Mapping[str, torch.Size], packed: dict[str, list[str]], parameters: dict[str, Any]
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


def _held(places: Mapping[str, Place | None]) -> dict[str, str]:
    return {name: checksum(place.tensor) for name, place in places.items() if place is not None}


def _pack_anew(layer: Any) -> None:
    # The old packed copy goes first: both at once would double the peak.
    layer.cpu_linear = None
    _pack_and_keep(layer)


def _is_packed(layer: Any) -> bool:
    return hasattr(layer, "cpu_linear") and not getattr(layer, "_cpu_skip_gemm_dispatch", False)


def _is_embedding(layer: torch.nn.Module) -> bool:
    return not hasattr(layer, "quant_method") or "Embedding" in type(layer).__name__ or _is_head(layer)


def _is_head(layer: torch.nn.Module) -> bool:
    return type(layer).__name__ == "ParallelLMHead"


def _head(model: torch.nn.Module) -> Any:
    return next((m for m in model.modules() if _is_head(m)), None)


def _columns(layer: Any, version: int) -> torch.Tensor:
    """[outputs, columns] of the weight that a layer computes with, by its own arithmetic."""
    weight = layer.weight
    width = weight.shape[1]
    inputs = one_hot(probe_columns(version, width), width, weight.dtype, weight.device)
    with torch.no_grad():
        columns: torch.Tensor = layer.quant_method.apply(layer, inputs).T
    return columns
