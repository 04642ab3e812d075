"""One update on token trees, on packed rows and on padded rows: the same gradients, and what each costs.

    python benchmarks/update.py [--quick] [--out benchmarks/results/update.json]
    python benchmarks/update.py --batch made_up --hidden 2048 --layers 16 --device cuda

`keydoor`: groups that the quick start's model played, and that model. `tool_desk`: groups that SmolLM2-135M played, and
its first layers (`--layers`; the whole model takes minutes a pass on two cores). `made_up`: groups whose lengths and
sharing are those of the quick start, and a random Llama. `--trajectories` takes a batch that
`agentrl.training.dump.save_batch` wrote. Everything is float32; the three ways take turns in one process.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conditions import conditions
from support.results import Verdict, finish, middle, options
from support.subjects import Subject, keydoor_subject, play_groups, tool_desk_subject
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from agentrl import models
from agentrl.batch import Context, TrainingBatch, build_batch
from agentrl.engines.transformers import TransformersEngine
from agentrl.errors import ConfigError
from agentrl.methods.groups import grpo
from agentrl.training.dump import load_batch
from agentrl.training.logprobs import Reading, TreeModel, tree_model
from agentrl.training.packing import pack
from agentrl.training.tree import build_tree
from agentrl.types import Action, Group, Observation, Status, Step, Task, Trajectory

GRADIENT_GAP = 1e-5
IN_PROPORTION = 0.8
"Speed-up over the share of tokens saved: the output head runs on the sampled tokens, which no way can save."

Pass = Callable[[TreeModel, TrainingBatch, int], Iterator[tuple[Tensor, Tensor, int]]]
"""Yields per micro-batch the columns, their log-probabilities and the tokens computed."""


@dataclass(frozen=True)
class Result:
    name: str
    seconds: list[float]
    "Of every round but the first."
    tokens: int
    "Computed, padding included."
    worst_gradient_gap: float
    "Largest absolute difference to token trees, over the largest absolute gradient."

    def slower(self, other: Result) -> float:
        """How many times the other's time this takes: the median over the rounds."""
        found: float = middle([a / b for a, b in zip(self.seconds, other.seconds, strict=True)])["median"]
        return found


@dataclass(frozen=True)
class Case:
    """A batch, and the model that computes it."""

    name: str
    batch: TrainingBatch
    model: TreeModel


def compare(case: Case, budget: int, repeats: int) -> list[Result]:
    subject, batch = case.model, case.batch
    passes: dict[str, Pass] = {"token trees": on_trees, "packed rows": on_packed_rows, "padded rows": on_padded_rows}
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    tokens: dict[str, int] = {}
    gradients: dict[str, list[Tensor]] = {}
    for _ in range(repeats + 1):
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
            seconds[name].append(time.perf_counter() - started)
            gradients[name] = [p.grad.clone() for p in subject.model.parameters() if p.grad is not None]
    trees = gradients["token trees"]
    largest = max(float(g.abs().max()) for g in trees)

    def gap(name: str) -> float:
        return max(float((a - b).abs().max()) for a, b in zip(trees, gradients[name], strict=True)) / largest

    return [Result(name, seconds[name][1:], tokens[name], gap(name)) for name in passes]


def on_trees(subject: TreeModel, batch: TrainingBatch, budget: int) -> Iterator[tuple[Tensor, Tensor, int]]:
    for micro in pack(batch, np.arange(batch.table.trajectories), budget):
        found = subject.scores(micro.tree, Reading(1.0))
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
        found = subject.scores(side, Reading(1.0))
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


async def played(subject: Subject, groups: int, size: int) -> TrainingBatch:
    """The groups that the subject's model plays, with GRPO's credit."""
    engine = TransformersEngine(models.load_model(subject.model_path), max_context=subject.limits.max_context)
    await engine.start()
    try:
        async with subject.rollout(engine, groups * size) as rollout:
            return grpo().batch(await play_groups(subject, rollout, subject.tasks(groups), size))
    finally:
        await engine.close()


def made_up_batch(chosen: argparse.Namespace) -> TrainingBatch:
    """A prompt of `--prompt` tokens (10 of them the same everywhere), then turns of 7 shown and `--answer` sampled."""
    rng = np.random.default_rng(0)
    system = rng.integers(0, 50, 10)
    found = []
    for g in range(chosen.groups):
        task = Task(f"g{g}", "made_up")
        first = np.concatenate([system, rng.integers(0, 50, chosen.prompt - 10)]).astype(np.int32)
        trajectories = []
        for m in range(chosen.members):
            steps: list[Step] = []
            for index in range(int(rng.integers(-(-chosen.turns // 2), chosen.turns + 1))):
                # Few answers and deterministic worlds: the first turns of a group often coincide.
                answer = int(50 + rng.integers(0, 4 if index < 3 else 10))
                sampled = np.full(chosen.answer, answer, np.int32)
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


def report(case: Case, results: Sequence[Result]) -> tuple[dict[str, Any], list[Verdict]]:
    trees, _, padded = results
    subject, batch = case.model, case.batch
    print(f"{case.name:14}{'seconds':>9}{'tokens':>9}{'time ratio':>12}{'token ratio':>13}{'gradient gap':>14}")
    rows = {}
    for r in results:
        slower, more = r.slower(trees), r.tokens / trees.tokens
        times = middle(r.seconds)
        print(f"{r.name:14}{times['median']:9.3f}{r.tokens:9d}{slower:12.2f}{more:13.2f}{r.worst_gradient_gap:14.1e}")
        rows[r.name] = {
            "seconds": times,
            "tokens": r.tokens,
            "time_ratio": slower,
            "token_ratio": more,
            "gradient_gap": r.worst_gradient_gap,
        }
    told = {
        "rows": rows,
        "parameters": sum(p.numel() for p in subject.model.parameters()),
        "trajectories": batch.table.trajectories,
        "contexts": len(batch.contexts),
        "sampled_tokens": len(batch.columns),
        "kernel": subject.kernel,
        "dtype": str(subject.dtype),
        "threads": torch.get_num_threads(),
    }
    gap = max(r.worst_gradient_gap for r in results)
    saved = padded.slower(trees) / (padded.tokens / trees.tokens)
    return told, [
        Verdict(f"{case.name}: gradients apart by", gap, "at most", GRADIENT_GAP),
        Verdict(f"{case.name}: speed-up over padded rows per token saved", saved, "at least", IN_PROPORTION),
    ]


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


def cases(chosen: argparse.Namespace, folder: Path) -> Iterator[Case]:
    groups, size = (2, 4) if chosen.quick else (chosen.groups, chosen.members)
    if chosen.trajectories is not None:
        yield Case(chosen.trajectories.stem, _with_signal(load_batch(chosen.trajectories)), _model(chosen, None))
        return
    for name in chosen.batch:
        if name == "made_up":
            yield Case(name, _with_signal(made_up_batch(chosen)), _model(chosen, None))
        elif name == "keydoor":
            subject = asyncio.run(keydoor_subject(folder, demonstrations=64 if chosen.quick else 600))
            batch = asyncio.run(played(subject, groups, size))
            yield Case(name, _with_signal(batch), _model(chosen, subject.model_path))
        else:
            try:
                subject = tool_desk_subject()
            except ConfigError as error:
                print(f"tool_desk is left out: {error}")
                continue
            batch = asyncio.run(played(subject, max(groups // 4, 1), size))
            layers = 2 if chosen.quick else chosen.layers
            yield Case(name, _with_signal(batch), _model(chosen, subject.model_path, layers))


def _with_signal(batch: TrainingBatch) -> TrainingBatch:
    """Random advantages where there are none, so that there is a gradient to compare."""
    if batch.has_signal:
        return batch
    advantage = np.random.default_rng(0).normal(size=len(batch.columns)).astype(np.float32)
    return replace(batch, advantage=advantage, scale=np.full(len(batch.columns), 1 / len(batch.columns), np.float32))


def _model(chosen: argparse.Namespace, path: Path | None, layers: int | None = None) -> TreeModel:
    """The model at `--model` or `path`, cut after its first layers where a number is given; else a random Llama."""
    path = chosen.model or path
    if path is not None:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        if layers is not None and layers < len(model.model.layers):
            model.model.layers = model.model.layers[:layers]
            model.config.num_hidden_layers = layers
    else:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=64,
            hidden_size=chosen.hidden,
            intermediate_size=2 * chosen.hidden,
            num_hidden_layers=chosen.layers,
            num_attention_heads=chosen.hidden // 32,
            num_key_value_heads=chosen.hidden // 32,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
        )
        model = LlamaForCausalLM(config)
    return tree_model(model.eval().to(chosen.device))


def _wait(subject: TreeModel) -> None:
    if subject.device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    chosen = _options()
    torch.set_num_threads(chosen.threads)
    before = conditions()
    measured, verdicts = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(chosen, Path(folder)):
            results = compare(case, chosen.micro_batch_tokens, 1 if chosen.quick else chosen.repeats)
            measured[case.name], found = report(case, results)
            verdicts += found
    finish(chosen, before, measured, verdicts)


def _options() -> argparse.Namespace:
    parser = options(__doc__)
    names = ("keydoor", "tool_desk", "made_up")
    parser.add_argument("--batch", nargs="+", choices=names, default=["keydoor", "tool_desk"])
    parser.add_argument("--trajectories", type=Path, help="a batch written by agentrl.training.dump.save_batch")
    parser.add_argument("--model", type=Path, help="a folder that from_pretrained loads, in place of the batch's own")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    parser.add_argument("--groups", type=int, default=8, help="of keydoor; tool_desk gets a quarter")
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--layers", type=int, default=8, help="of SmolLM2, and of the made-up model")
    parser.add_argument("--micro-batch-tokens", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=2)
    shape = parser.add_argument_group("made_up")
    shape.add_argument("--prompt", type=int, default=17, help="tokens before the first answer")
    shape.add_argument("--turns", type=int, default=13, help="at most so many answers a trajectory")
    shape.add_argument("--answer", type=int, default=3, help="sampled tokens an answer")
    shape.add_argument("--hidden", type=int, default=64)
    return parser.parse_args()


if __name__ == "__main__":
    main()
