"""One update on token trees, on packed rows and on padded rows: the same gradients, and what each costs.

    python benchmarks/update.py [--trajectories FILE.npz] [--model FOLDER] [--out results.json]

Without `--trajectories` (a batch saved by `agentrl.training.dump.save_batch`) the batch is made up: groups of
multi-turn episodes whose prompt lengths, turns and sharing are those of the quick start. Without `--model` the model is
a random Llama of 84k parameters. All three are timed in turns in one process, best of `--repeats`.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from agentrl.batch import Context, TrainingBatch, build_batch
from agentrl.training.dump import load_batch
from agentrl.training.logprobs import TreeModel, tree_model
from agentrl.training.packing import pack
from agentrl.training.tree import build_tree
from agentrl.types import Action, Group, Observation, Status, Step, Task, Trajectory

Pass = Callable[[TreeModel, TrainingBatch, int], Iterator[tuple[Tensor, Tensor, int]]]
"""Yields per micro-batch the columns, their log-probabilities and the tokens computed."""


@dataclass(frozen=True)
class Result:
    name: str
    seconds: float
    tokens: int
    worst_gradient_gap: float
    "Largest absolute difference to token trees, over the largest absolute gradient."


def main() -> None:
    options = _options()
    batch = load_batch(options.trajectories) if options.trajectories else made_up_batch(options)
    if not batch.has_signal:
        advantage = np.random.default_rng(0).normal(size=len(batch.columns)).astype(np.float32)
        scale = np.full(len(batch.columns), 1 / len(batch.columns), np.float32)
        batch = replace(batch, advantage=advantage, scale=scale)
    model = _model(options)
    subject = tree_model(model)
    results = compare(subject, batch, options.micro_batch_tokens, options.repeats)
    report(results, subject, batch, options)


def compare(subject: TreeModel, batch: TrainingBatch, budget: int, repeats: int) -> list[Result]:
    passes: dict[str, Pass] = {"token trees": on_trees, "packed rows": on_packed_rows, "padded rows": on_padded_rows}
    seconds = {name: float("inf") for name in passes}
    tokens: dict[str, int] = {}
    gradients: dict[str, list[Tensor]] = {}
    for _ in range(repeats + 1):  # the first round warms up; its times can only lose
        for name, run in passes.items():
            subject.model.zero_grad(set_to_none=True)
            _wait(subject)
            started = time.perf_counter()
            tokens[name] = 0
            for column, logprobs, computed in run(subject, batch, budget):
                weight = torch.from_numpy(batch.advantage * batch.scale * batch.weight).to(logprobs.device)[column]
                (-weight * logprobs).sum().backward()
                tokens[name] += computed
            _wait(subject)
            seconds[name] = min(seconds[name], time.perf_counter() - started)
            gradients[name] = [p.grad.clone() for p in subject.model.parameters() if p.grad is not None]
    trees = gradients["token trees"]
    largest = max(float(g.abs().max()) for g in trees)

    def gap(name: str) -> float:
        return max(float((a - b).abs().max()) for a, b in zip(trees, gradients[name], strict=True)) / largest

    return [Result(name, seconds[name], tokens[name], gap(name)) for name in passes]


def on_trees(subject: TreeModel, batch: TrainingBatch, budget: int) -> Iterator[tuple[Tensor, Tensor, int]]:
    for micro in pack(batch, np.arange(batch.table.trajectories), budget):
        found = subject.scores(micro.tree, temperature=1.0, entropy=False, differentiable=False)
        yield torch.from_numpy(micro.tree.column), found.logprobs, len(micro.tree)


def on_packed_rows(subject: TreeModel, batch: TrainingBatch, budget: int) -> Iterator[tuple[Tensor, Tensor, int]]:
    """The same kernel and budget, but every context is a tree of its own: nothing is shared."""
    for rows in _chunks(batch, lambda held, row: sum(map(len, held)) + len(row) <= budget):
        trees = [build_tree([row]) for row in rows]
        offsets = np.cumsum([0, *(len(tree) for tree in trees)])[:-1]
        side = replace(
            trees[0],
            token=np.concatenate([t.token for t in trees]),
            depth=np.concatenate([t.depth for t in trees]),
            subtree_end=np.concatenate([t.subtree_end + o for t, o in zip(trees, offsets, strict=True)]),
            column=np.concatenate([t.column for t in trees]),
            position=np.concatenate([t.position + o for t, o in zip(trees, offsets, strict=True)]),
            predictor=np.concatenate([t.predictor + o for t, o in zip(trees, offsets, strict=True)]),
        )
        found = subject.scores(side, temperature=1.0, entropy=False, differentiable=False)
        yield torch.from_numpy(side.column), found.logprobs, len(side)


def on_padded_rows(subject: TreeModel, batch: TrainingBatch, budget: int) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Right-padded rows through the model's own forward with a causal mask."""
    for rows in _chunks(batch, lambda held, row: (len(held) + 1) * max(map(len, [*held, row])) <= budget):
        width = max(len(row) for row in rows)
        ids = np.zeros((len(rows), width), np.int64)
        at, column = [], []
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row.tokens
            trained = np.flatnonzero(row.column >= 0)
            at.append(index * width + trained)
            column.append(row.column[trained])
        where = torch.from_numpy(np.concatenate(at)).to(subject.device)
        flat = torch.from_numpy(ids).to(subject.device)
        states = subject.body(input_ids=flat, use_cache=False).last_hidden_state.flatten(0, 1)
        logits = subject.head(states.index_select(0, where - 1)).float()
        chosen = torch.log_softmax(logits, -1).gather(1, flat.flatten()[where][:, None])[:, 0]
        yield torch.from_numpy(np.concatenate(column)), chosen, ids.size


def made_up_batch(options: argparse.Namespace) -> TrainingBatch:
    """A prompt of `--prompt` tokens (10 of them the same everywhere), then turns of 7 shown and `--answer` sampled."""
    rng = np.random.default_rng(0)
    system = rng.integers(0, 50, 10)
    found = []
    for g in range(options.groups):
        task = Task(f"g{g}", "made_up")
        first = np.concatenate([system, rng.integers(0, 50, options.prompt - 10)]).astype(np.int32)
        trajectories = []
        for m in range(options.members):
            steps: list[Step] = []
            for index in range(int(rng.integers(-(-options.turns // 2), options.turns + 1))):
                # Few answers and deterministic worlds: the first turns of a group often coincide.
                answer = int(50 + rng.integers(0, 4 if index < 3 else 10))
                sampled = np.full(options.answer, answer, np.int32)
                shown = first if index == 0 else (np.arange(7) * 7 + answer * index + g).astype(np.int32) % 50
                before = steps[-1].id if steps else None
                logprobs, versions = np.full(len(sampled), -1, np.float32), np.zeros(len(sampled), np.int32)
                steps.append(
                    Step(
                        id=f"g{g}m{m}/{index}",
                        index=index,
                        previous=before,
                        context=before,
                        prompt=shown,
                        tokens=sampled,
                        logprobs=logprobs,
                        versions=versions,
                        action=Action("x"),
                        observation=Observation(()),
                    )
                )
            trajectories.append(Trajectory(f"g{g}m{m}", task, task.id, tuple(steps), Status.OK))
        found.append(Group(task.id, task, tuple(trajectories)))
    return build_batch(found)


def report(results: list[Result], subject: TreeModel, batch: TrainingBatch, options: argparse.Namespace) -> None:
    trees = results[0]
    print(f"{'':14}{'seconds':>9}{'tokens':>9}{'time ratio':>12}{'token ratio':>13}{'gradient gap':>14}")
    for r in results:
        ratio, work = r.seconds / trees.seconds, r.tokens / trees.tokens
        print(f"{r.name:14}{r.seconds:9.3f}{r.tokens:9d}{ratio:12.2f}{work:13.2f}{r.worst_gradient_gap:14.1e}")
    conditions = {
        "parameters": sum(p.numel() for p in subject.model.parameters()),
        "trajectories": batch.table.trajectories,
        "contexts": len(batch.contexts),
        "sampled_tokens": len(batch.columns),
        **{name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
        "kernel": subject.kernel,
        "dtype": str(subject.dtype),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if subject.device.type == "cuda" else platform.processor() or "cpu",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
    if options.out:
        rows = [
            {
                "name": r.name,
                "seconds": r.seconds,
                "tokens": r.tokens,
                "time_ratio": r.seconds / trees.seconds,
                "gradient_gap": r.worst_gradient_gap,
            }
            for r in results
        ]
        options.out.write_text(json.dumps({"conditions": conditions, "results": rows}, indent=1) + "\n")


def _chunks(batch: TrainingBatch, fits: Callable[[list[_Row], _Row], bool]) -> Iterator[list[_Row]]:
    held: list[_Row] = []
    for context in sorted(batch.contexts, key=lambda c: len(c.tokens)):
        row = _Row(context.tokens, context.column)
        if held and not fits(held, row):
            yield held
            held = []
        held.append(row)
    yield held


class _Row(Context):
    def __len__(self) -> int:
        return len(self.tokens)


def _model(options: argparse.Namespace) -> Any:
    if options.model is not None:
        model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    else:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=64,
            hidden_size=options.hidden,
            intermediate_size=2 * options.hidden,
            num_hidden_layers=options.layers,
            num_attention_heads=options.hidden // 32,
            num_key_value_heads=options.hidden // 32,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
        )
        model = LlamaForCausalLM(config)
    return model.eval().to(options.device)


def _wait(subject: TreeModel) -> None:
    if subject.device.type == "cuda":
        torch.cuda.synchronize()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--trajectories", type=Path, help="a batch written by agentrl.training.dump.save_batch")
    parser.add_argument("--model", type=Path, help="a folder that from_pretrained loads")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=17, help="tokens before the first answer")
    parser.add_argument("--turns", type=int, default=13, help="at most so many answers a trajectory")
    parser.add_argument("--answer", type=int, default=3, help="sampled tokens an answer")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--micro-batch-tokens", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
