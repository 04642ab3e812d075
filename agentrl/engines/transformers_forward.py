"""One forward pass of a `transformers` model over the new tokens of many slots.

Rows are padded on the left, so every row's next-token logits are in the last column and the head runs on that column
only. The module is a view of the learner's: its own config, mode and hooks, the same parameters.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from agentrl.engines.transformers_attention import NAME
from agentrl.engines.transformers_cache import SlotCache
from agentrl.engines.transformers_merged import merge
from agentrl.engines.transformers_slots import Slots
from agentrl.errors import ConfigError

Integers = npt.NDArray[np.int64]

CHUNK = 512
"Most new tokens of one sequence in one pass."
LARGEST_PASS = 8192
"Most tokens in one pass, padding included."


class Forward:
    """Runs the model over what `slots` knows and has not computed. Not thread-safe: one thread, under the lock."""

    def __init__(self, model: torch.nn.Module, slots: Slots, cache: SlotCache) -> None:
        self._model = model
        self._merged = merge(model)
        self.refresh()
        self._slots = slots
        self._cache = cache
        parameter = next(model.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype
        # How many tokens cost as much as starting a pass; only splits of a ragged batch depend on it.
        size = sum(p.numel() for p in model.parameters())
        self._pass_cost = 4096.0 if self._device.type == "cuda" else max(4.0, 2e7 / size)

    def refresh(self) -> None:
        """The weights have changed: add their adapters up again."""
        for layer in self._merged:
            layer.refresh()

    def passes(self, rows: Integers) -> Iterator[Integers]:
        """`rows` split by how many tokens they wait for, where that saves more padding than a pass costs."""
        counts = self.pending(rows)
        order = np.argsort(counts, kind="stable")
        for start, end in _split(counts[order], self._pass_cost):
            limit = max(1, LARGEST_PASS // int(counts[order[end - 1]]))
            for at in range(start, end, limit):
                yield np.sort(rows[order[at : min(at + limit, end)]])

    def pending(self, rows: Integers) -> Integers:
        """How many tokens of each row the next pass computes."""
        left: Integers = self._slots.known[rows] - self._slots.filled[rows]
        return np.minimum(left, np.int64(CHUNK))

    def run(self, rows: Integers, keep: int = 1) -> torch.Tensor:
        """Compute the pending tokens of ascending `rows`: logits [rows, keep, vocabulary] of the last `keep`."""
        slots, cache = self._slots, self._cache
        counts = self.pending(rows)
        ends = slots.filled[rows] + counts
        cache.reserve(slots.top, int(ends.max()))
        first, last = int(rows[0]), int(rows[-1]) + 1
        # A dense block of slots is read in place, its idle rows being padding; a sparse one is gathered.
        dense = 2 * len(rows) >= last - first
        batch = np.arange(first, last) if dense else rows
        starts, stops = slots.filled[batch], slots.filled[batch].copy()
        active = rows - first if dense else np.arange(len(rows))
        stops[active] = ends
        width = int(counts.max())
        positions = stops[:, None] + np.arange(-width, 0)
        real = positions >= starts[:, None]
        positions = np.maximum(positions, 0)
        tokens = np.where(real, slots.ids[batch[:, None], positions], 0)
        destination = np.where(real, batch[:, None] * cache.length + positions, cache.scratch)
        sent = torch.from_numpy(np.stack([tokens, positions, destination])).to(self._device, non_blocking=True)
        selected = slice(first, last) if dense else torch.from_numpy(batch).to(self._device)
        window = cache.aim(selected, sent[2].flatten(), int(ends.max()))
        logits = self._model(
            input_ids=sent[0],
            position_ids=sent[1],
            attention_mask=self._mask(sent[1], window),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits
        slots.filled[rows] = ends
        if dense and len(rows) < last - first:
            logits = logits[torch.from_numpy(active).to(self._device)]
        return logits  # type: ignore[no-any-return]

    def _mask(self, positions: torch.Tensor, window: int) -> torch.Tensor:
        """Additive [rows, 1, new, window]; additive because eager attention cannot take booleans."""
        hidden = torch.arange(window, device=self._device) > positions[:, None, :, None]
        mask = torch.zeros(hidden.shape, dtype=self._dtype, device=self._device)
        return mask.masked_fill_(hidden, torch.finfo(self._dtype).min)


def view_of(model: torch.nn.Module, max_context: int) -> Any:
    """A causal LM that shares `model`'s parameters and nothing else, in evaluation mode, with an attention of its own.

    So the learner may train with dropout, another attention or adapters switched off while the engine samples.
    Raises `ConfigError` for a model whose forward pass this engine cannot drive.
    """
    shared: dict[int, Any] = {id(parameter): parameter for parameter in model.parameters()}
    view: Any = copy.deepcopy(model, shared)
    # peft wraps the model it injected adapters into; the wrapper adds nothing to a forward pass.
    if hasattr(view, "get_base_model"):
        view = view.get_base_model()
    _check_supported(view, max_context)
    view.eval()
    # The second name is the older one, and newer versions warn of it.
    checkpoints = getattr(view, "is_activation_checkpointing", None)
    if getattr(view, "is_gradient_checkpointing", False) if checkpoints is None else checkpoints:
        view.gradient_checkpointing_disable()
    if view.config._attn_implementation != "eager":
        view.set_attn_implementation(NAME)
    return view


def _check_supported(model: Any, max_context: int) -> None:
    name = type(model).__name__
    accepted = inspect.signature(model.forward).parameters
    needed = ("input_ids", "position_ids", "attention_mask", "past_key_values", "logits_to_keep")
    lacking = [argument for argument in needed if argument not in accepted]
    if lacking:
        raise ConfigError(
            f"{name}.forward takes no {', '.join(lacking)}; the transformers engine drives decoder-only causal LMs of "
            "transformers 5 that do. Use the vLLM engine for this model."
        )
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None)
    if kinds - {"full_attention", "sliding_attention"}:
        raise ConfigError(
            f"{name} has layers of kind {', '.join(sorted(kinds))}; the transformers engine keeps keys and values of "
            "full attention only. Use the vLLM engine for this model."
        )
    sliding = "sliding_attention" in kinds or not getattr(config, "layer_types", None)
    if sliding and window is not None and max_context > window:
        raise ConfigError(
            f"{name} attends to the last {window} tokens only and max_context is {max_context}; set max_context to at "
            f"most {window}, or use the vLLM engine."
        )


def _split(counts: Integers, cost: float) -> list[tuple[int, int]]:
    """Ranges of the ascending `counts`, cut where padding saved exceeds `cost` tokens."""
    ranges, waiting = [], [(0, len(counts))]
    while waiting:
        start, end = waiting.pop()
        part = counts[start:end]
        saved = np.arange(1, len(part)) * (part[-1] - part[:-1])
        at = int(saved.argmax()) if len(saved) else 0
        if len(saved) and saved[at] > cost:
            waiting += [(start + at + 1, end), (start, start + at + 1)]
        else:
            ranges.append((start, end))
    return ranges
