"""Log-probabilities of the sampled tokens of a token tree under a transformers causal language model.

Rule: tokens x vocabulary never exists as a whole. Logits are made for predicting positions only, in chunks, in
float32, divided by the temperature, and made again in the backward pass where there is more than one chunk. Where the
head gets no gradient (`agentrl/training/head.py`) they are never kept at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from agentrl.batch import Context
from agentrl.errors import ConfigError
from agentrl.training import attention
from agentrl.training.head import frozen_scores
from agentrl.training.tree import TokenTree, build_tree
from agentrl.training.weights import base_model
from agentrl.types import Floats, TokenIds, token_ids

logger = logging.getLogger(__name__)

HEAD_ELEMENTS = 2**26
"Logits in one chunk of the output head: 256 MiB in float32. More chunks than one cost a second pass of the head."


@dataclass(frozen=True, slots=True, eq=False)
class TokenScores:
    """float32 [n], in nats, one entry per column of the tree."""

    logprobs: Tensor
    entropy: Tensor | None
    statistic: Tensor | None = None
    "What `Reading.statistic` made of the logits that each token was drawn from."


@dataclass(frozen=True, slots=True)
class Reading:
    """What is wanted of the logits beside the log-probability of the token."""

    temperature: float
    entropy: bool = False
    differentiable: bool = False
    "The entropy's gradient is wanted too."
    statistic: Callable[[Tensor], Tensor] | None = None
    "From tempered logits [m, vocabulary] to [m]; always with its gradient."


@dataclass(frozen=True, slots=True, eq=False)
class TreeModel:
    """A causal language model, taken apart into body and head so that it can read token trees."""

    model: Any
    body: Any
    head: torch.nn.Module
    kernel: attention.Kernel
    autocast: torch.dtype | None = None
    "Compute in this type where the weights are float32."
    head_elements: int = HEAD_ELEMENTS

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.body.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        return self.autocast or self.body.get_input_embeddings().weight.dtype

    def hidden(self, tree: TokenTree) -> Tensor:
        """[len(tree), width]: the last hidden state of every tree position."""
        inputs = attention.prepare(tree, kernel=self.kernel, dtype=self.dtype, device=self.device)
        extra = {} if inputs.calls is None else {"tree_calls": inputs.calls}
        with self._computing():
            output = self.body(
                input_ids=inputs.input_ids,
                position_ids=inputs.position_ids,
                attention_mask=inputs.mask,
                use_cache=False,
                **extra,
            )
        states: Tensor = output.last_hidden_state[0, : len(tree)]
        return states

    def scores(self, tree: TokenTree, reading: Reading) -> TokenScores:
        # Identical samples share a position: its logits are made once.
        position, first, inverse = np.unique(tree.position, return_index=True, return_inverse=True)
        predictor = torch.from_numpy(tree.predictor[first]).to(self.device)
        target = torch.from_numpy(tree.token[position].astype(np.int64)).to(self.device)
        states = self.hidden(tree).index_select(0, predictor)
        logprobs, entropies, statistics = self._read(states, target, reading)
        back = torch.from_numpy(inverse.reshape(-1)).to(self.device)
        return TokenScores(
            logprobs[back],
            entropies[back] if reading.entropy else None,
            statistics[back] if reading.statistic is not None else None,
        )

    def _read(self, states: Tensor, target: Tensor, reading: Reading) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probability, entropy and statistic of each row; the last two are fillers where not asked for."""

        frozen = self._frozen_head(states, reading)
        if frozen is not None:
            logprobs, entropy = frozen_scores(states, frozen, target, reading.temperature)
            return logprobs, entropy, logprobs.detach()

        def chunk(part: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            with self._computing():
                logits = self.head(part)
            tempered = logits.float()
            if reading.temperature != 1:  # dividing by 1 would copy tokens x vocabulary
                tempered = tempered / reading.temperature
            logp = torch.log_softmax(tempered, dim=-1)
            chosen = logp.gather(1, ids[:, None])[:, 0]
            entropy = statistic = chosen.detach()
            if reading.entropy:
                with torch.set_grad_enabled(reading.differentiable and torch.is_grad_enabled()):
                    entropy = -(logp.exp() * logp).sum(-1)
            if reading.statistic is not None:
                statistic = reading.statistic(tempered)
            return chosen, entropy, statistic

        size = max(self.head_elements // int(self.body.config.get_text_config().vocab_size), 1)
        if len(states) <= size:
            return chunk(states, target)
        parts = [
            checkpoint(chunk, part, ids, use_reentrant=False, preserve_rng_state=False)
            for part, ids in zip(torch.split(states, size), torch.split(target, size), strict=True)
        ]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]), torch.cat([p[2] for p in parts])

    def _frozen_head(self, states: Tensor, reading: Reading) -> torch.nn.Linear | None:
        """The head, where it gets no gradient and logits are wanted for nothing but log-probabilities."""
        head = self.head
        if type(head) is not torch.nn.Linear or reading.statistic is not None or self.autocast is not None:
            return None
        learns = head.weight.requires_grad or (reading.entropy and reading.differentiable)
        if torch.is_grad_enabled() and learns:
            return None
        return head if states.dtype == head.weight.dtype == torch.float32 else None

    def _computing(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.autocast) if self.autocast else nullcontext()


def tree_model(model: Any, *, autocast: torch.dtype | None = None, kernel: attention.Kernel | None = None) -> TreeModel:
    """Take `model` apart, choose the attention kernel and prove on a small tree that nothing was lost.

    Raises `ConfigError` where the architecture cannot read trees (sliding windows, logits changed after the head,
    attention that ignores a given mask).
    """
    base = base_model(model)
    layers = set(getattr(base.config.get_text_config(), "layer_types", None) or ["full_attention"])
    if layers != {"full_attention"}:
        raise ConfigError(
            f"{type(base).__name__} has layers of kind {sorted(layers - {'full_attention'})}; token trees need full "
            "attention in every layer. Choose another model, or switch its sliding window off in config.json."
        )
    head = base.get_output_embeddings()
    if head is None:
        raise ConfigError(f"{type(base).__name__} has no output head; load it with AutoModelForCausalLM.")
    attention.install(base)
    body = base.base_model
    device = next(body.parameters()).device
    _warn_of_slow_bfloat16(device, autocast or head.weight.dtype)
    if kernel is None and device.type == "cuda":
        flexible = TreeModel(model, body, head, "flex", autocast)
        try:
            _prove(flexible, base)
        except Exception as reason:  # a compiler or a driver may fail in any way; the other kernel always works
            logger.warning("FlexAttention is not used: %s. Falling back to SDPA over blocks.", reason)
        else:
            return flexible
    plain = TreeModel(model, body, head, kernel or "blocks", autocast)
    _prove(plain, base)
    return plain


def chain(tokens: TokenIds) -> TokenTree:
    """A lone path; every token but the first is a column."""
    column = np.arange(len(tokens), dtype=np.int64) - 1
    return build_tree([Context(tokens, column)])


def score(model: TreeModel, tokens: TokenIds) -> Floats:
    """What `Engine.score` returns: log-probability of each token given those before it, temperature 1; entry 0 is 0."""
    result = np.zeros(len(tokens), np.float32)
    if len(tokens) > 1:
        with torch.no_grad():
            found = model.scores(chain(tokens), Reading(temperature=1.0))
        result[1:] = found.logprobs.cpu().numpy()
    return result


def _warn_of_slow_bfloat16(device: torch.device, dtype: torch.dtype) -> None:
    if device.type == "cpu" and dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        logger.warning(
            "this CPU has no bfloat16 instructions and emulates them: an update was seen to take ten times as long as "
            "in float32. Load the model in float32."
        )


def _prove(tree: TreeModel, base: Any) -> None:
    """Log-probabilities of a small tree against the model's own forward, row by row."""
    ids = np.random.default_rng(0).integers(0, base.config.get_text_config().vocab_size, 40)
    paths = [ids[:24], np.concatenate([ids[:9], ids[24:32]]), np.concatenate([ids[:15], ids[32:]])]
    start = 0
    contexts = []
    for path in paths:
        contexts.append(Context(token_ids(path), np.arange(start - 1, start + len(path) - 1, dtype=np.int64)))
        contexts[-1].column[0] = -1
        start += len(path) - 1
    with torch.no_grad():
        found = tree.scores(build_tree(contexts), Reading(temperature=1.0)).logprobs
        wanted = torch.cat([_plain(tree, base, torch.from_numpy(path).to(tree.device)) for path in paths])
    worst = float((found - wanted).abs().max())
    if not worst <= (1e-3 if tree.dtype == torch.float32 else 0.5):
        raise ConfigError(
            f"{type(base).__name__} reads a token tree differently from plain rows: its log-probabilities differ by "
            f"up to {worst:.3g} with {tree.kernel} attention. Choose a Llama- or Qwen-like model."
        )


def _plain(tree: TreeModel, base: Any, path: Tensor) -> Tensor:
    with tree._computing():
        logits = base(input_ids=path[None], use_cache=False).logits[0, :-1]
    return torch.log_softmax(logits.float(), -1).gather(1, path[1:, None])[:, 0]
