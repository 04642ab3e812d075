"""Random token forests and tiny models for the tests of the learner."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from agentrl.batch import TrainingBatch, build_batch
from agentrl.training.tree import TokenTree
from agentrl.types import Action, Group, Observation, Status, Step, Task, Trajectory

VOCABULARY = 61


_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    # Wide, so that a wrong mask or position shows in the fifth digit.
    "initializer_range": 0.15,
}


def tiny_llama(seed: int = 0, *, tied: bool = True) -> Any:
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(tie_word_embeddings=tied, **_SHAPE)).eval()


def tiny_qwen3(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(Qwen3Config(head_dim=32, tie_word_embeddings=True, **_SHAPE)).eval()


def ancestry(tree: TokenTree) -> npt.NDArray[np.bool_]:
    """[query, key]: true where the key is an ancestor of the query or the query itself, found by walking up."""
    found = np.eye(len(tree), dtype=np.bool_)
    path: list[int] = []
    for position, depth in enumerate(tree.depth):
        path = [*path[:depth], position]
        found[position, path] = True
    return found


def random_groups(seed: int, *, groups: int = 3, members: int = 4, steps: int = 4, longest: int = 9) -> list[Group]:
    """Shared system prompt, shared task prompts, an identical pair, branches sharing steps, rewritten contexts."""
    rng = np.random.default_rng(seed)
    system = _ids(rng, 11)
    found = []
    for g in range(groups):
        task = Task(f"g{g}", "forest")
        prompt = np.concatenate([system, _ids(rng, 6)])
        trajectories: list[Trajectory] = []
        for m in range(members):
            name = f"g{g}m{m}"
            if m == 1:
                steps_of = _copied(trajectories[0].steps, name)
            elif m == 2 and len(trajectories[0].steps) > 1:
                kept = trajectories[0].steps[: len(trajectories[0].steps) // 2]
                steps_of = (*kept, *_played(rng, name, prompt, kept, steps, longest, rewrite=False))
            else:
                steps_of = _played(rng, name, prompt, (), steps, longest, rewrite=m == 3)
            trajectories.append(Trajectory(name, task, task.id, steps_of, Status.OK))
        found.append(Group(task.id, task, tuple(trajectories)))
    return found


def random_batch(seed: int, **sizes: int) -> TrainingBatch:
    """Random advantages per token, the token mean, behavior logprobs near those of a uniform policy."""
    batch = build_batch(random_groups(seed, **sizes))
    rng = np.random.default_rng(seed + 1)
    size = len(batch.columns)
    return replace(
        batch,
        advantage=rng.normal(size=size).astype(np.float32),
        weight=rng.choice(np.array([0.5, 1.0], np.float32), size),
        scale=np.full(size, 1 / size, np.float32),
    )


def row_by_row(model: Any, batch: TrainingBatch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy of every column, one context at a time through the model's own forward."""
    logprobs: list[Tensor] = [torch.zeros(())] * len(batch.columns)
    entropy: list[Tensor] = [torch.zeros(())] * len(batch.columns)
    for context in batch.contexts:
        ids = torch.from_numpy(context.tokens.astype(np.int64))
        logp = torch.log_softmax(model(input_ids=ids[None], use_cache=False).logits[0].float() / temperature, -1)
        for at in np.flatnonzero(context.column >= 0):
            before = logp[at - 1]
            logprobs[context.column[at]] = before[ids[at]]
            entropy[context.column[at]] = -(before.exp() * before).sum()
    return torch.stack(logprobs), torch.stack(entropy)


def _played(
    rng: np.random.Generator,
    name: str,
    prompt: np.ndarray[Any, np.dtype[np.int32]],
    kept: tuple[Step, ...],
    steps: int,
    longest: int,
    *,
    rewrite: bool,
) -> tuple[Step, ...]:
    played: list[Step] = []
    for index in range(len(kept), len(kept) + int(rng.integers(1, steps + 1))):
        before = (*kept, *played)[-1].id if index else None
        fresh = before is None or (rewrite and index % 2 == 0)
        tokens = _ids(rng, int(rng.integers(1, longest + 1)))
        played.append(
            Step(
                id=f"{name}/{index}",
                index=index,
                previous=before,
                context=None if fresh else before,
                prompt=np.concatenate([prompt, _ids(rng, index)])
                if fresh
                else _ids(rng, int(rng.integers(1, longest))),
                tokens=tokens,
                logprobs=rng.uniform(-5, -3, len(tokens)).astype(np.float32),
                versions=np.zeros(len(tokens), np.int32),
                action=Action("x"),
                observation=Observation(()),
            )
        )
    return tuple(played)


def _copied(steps: tuple[Step, ...], name: str) -> tuple[Step, ...]:
    """The same tokens sampled a second time: other steps, equal paths."""
    ids = {step.id: f"{name}/{step.index}" for step in steps}
    return tuple(
        replace(
            step,
            id=ids[step.id],
            previous=ids[step.previous] if step.previous else None,
            context=ids[step.context] if step.context else None,
        )
        for step in steps
    )


def _ids(rng: np.random.Generator, size: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    return rng.integers(0, VOCABULARY, size).astype(np.int32)
