"""Two rows of numbers with published results, and random updates, for the tests of the losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import torch
from builders import make_groups, make_trajectory
from torch import Tensor

from agentrl.batch import UpdateColumns, build_batch
from agentrl.losses import aggregation
from agentrl.losses.objective import LossInputs, Objective, Prepared

# Two rows of 3 and 4 sampled tokens: log ratio, old log-probabilities and advantages of the references.
LOG_RATIO = torch.tensor([0.3, -0.4, 0.05, 0.5, -0.6, 1.5, 0.0], dtype=torch.float64)
OLD = torch.tensor([-1.0, -2.0, -0.5, -0.7, -1.5, -3.0, -0.2], dtype=torch.float64)
ADVANTAGE = torch.tensor([1.0] * 3 + [-0.8] * 4, dtype=torch.float64)
ROW = torch.tensor([0] * 3 + [1] * 4)


def inputs(logprobs: Tensor, **extra: Tensor) -> LossInputs:
    """The two rows, each a trajectory of one step."""
    given = {"behavior_logprobs": OLD, "proximal_logprobs": OLD, "advantage": ADVANTAGE, "row": ROW, "trajectory": ROW}
    return LossInputs(logprobs=logprobs, **({**given, "index": torch.zeros(7, dtype=torch.int64)} | extra))


def two_rows(**columns: Tensor) -> UpdateColumns:
    """The same as an update; `columns` are fields of `UpdateColumns`, and `behavior`."""
    groups = make_groups(
        g=[make_trajectory("a", "g", [0.0], lengths=[3]), make_trajectory("b", "g", [0.0], lengths=[4])]
    )
    batch = build_batch(groups)
    given = {"logprobs": OLD + LOG_RATIO, "proximal_logprobs": OLD, "advantage": ADVANTAGE} | columns
    arrays = {name: value.numpy().astype(np.float32) for name, value in given.items()}
    behavior = arrays.pop("behavior", OLD.numpy().astype(np.float32))
    return UpdateColumns(
        table=batch.table,
        columns=replace(batch.columns, behavior_logprobs=behavior),
        weight=batch.weight,
        **({"entropy": np.ones(7, np.float32)} | arrays),
    )


def scales() -> dict[str, Tensor]:
    update = two_rows()
    named = {
        "token_mean": aggregation.token_mean,
        "trajectory_mean": aggregation.trajectory_mean,
        "step_mean": aggregation.step_mean,
        "trajectory_sum": aggregation.trajectory_sum,
        "constant": aggregation.constant(4),
        "prompt_mean": aggregation.prompt_mean,
    }
    return {name: torch.from_numpy(rule(update.table, update.columns)).double() for name, rule in named.items()}


def random_update(seed: int = 0, *, lag: float = 0.3, members: int = 3) -> UpdateColumns:
    """Two groups of trajectories with one to three steps of one to five tokens; `lag` is the spread of log ratios."""
    rng = np.random.default_rng(seed)
    groups = {}
    for name in "gh":
        groups[name] = [
            make_trajectory(f"{name}{m}", name, [0.0] * steps, lengths=rng.integers(1, 6, steps).tolist())
            for m, steps in enumerate(rng.integers(1, 4, members))
        ]
    batch = build_batch(make_groups(**groups))
    size = len(batch.columns)

    def near(values: np.ndarray, spread: float) -> np.ndarray:
        return np.minimum(values + spread * rng.normal(size=size), -1e-3).astype(np.float32)

    behavior = (-4 * rng.random(size) - 0.01).astype(np.float32)
    proximal = near(behavior, lag)
    value = rng.normal(size=batch.table.trajectories)
    update = UpdateColumns(
        table=batch.table,
        columns=replace(batch.columns, behavior_logprobs=behavior),
        advantage=value[batch.table.trajectory[batch.columns.row]].astype(np.float32),
        weight=batch.weight,
        logprobs=near(proximal, lag),
        proximal_logprobs=proximal,
        entropy=(3 * rng.random(size)).astype(np.float32),
        reference_logprobs=near(behavior, 0.5),
        teacher_logprobs=near(behavior, 0.5),
    )
    return update


def micro_batch(
    update: UpdateColumns,
    prepared: Prepared,
    trajectories: Sequence[int],
    logprobs: Tensor,
    entropy: Tensor,
    statistic: Tensor | None = None,
) -> tuple[np.ndarray, LossInputs]:
    """The tokens of some trajectories, and what an objective is given for them; `logprobs` are of all tokens."""
    here = np.flatnonzero(np.isin(update.trajectory, trajectories))
    at = torch.from_numpy(here)

    def local(ids: np.ndarray) -> Tensor:
        return torch.from_numpy(np.unique(ids[here], return_inverse=True)[1].reshape(-1).astype(np.int64))

    def part(values: np.ndarray | None) -> Tensor | None:
        return None if values is None else torch.from_numpy(values[here].astype(np.float64))

    known = {name: getattr(update, name) for name in ("proximal_logprobs", "reference_logprobs", "teacher_logprobs")}
    assert known.keys() <= {field.name for field in fields(LossInputs)}
    return here, LossInputs(
        logprobs=logprobs[at],
        behavior_logprobs=part(update.columns.behavior_logprobs),
        advantage=part(prepared.advantage),
        row=local(update.columns.row),
        trajectory=local(update.trajectory),
        entropy=entropy[at],
        index=torch.from_numpy(update.table.index[update.columns.row[here]].astype(np.int64)),
        statistic=None if statistic is None else statistic[at],
        term_weights=tuple(part(weight) for weight in prepared.term_weights),
        **{name: part(values) for name, values in known.items()},
    )


def loss_and_gradients(
    objective: Objective, update: UpdateColumns, prepared: Prepared, parts: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """[n] losses times prepared weights, and the gradient of their sum with respect to logits, entropies and all.

    Logits are made up: one row per token whose chosen entry has about the log-probability that the update names.
    """
    size = len(update)
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(size, 9, generator=generator, dtype=torch.float64)
    want = torch.from_numpy(update.logprobs.astype(np.float64))
    logits[:, 0] = torch.logsumexp(logits[:, 1:], -1) + want - torch.log1p(-want.exp())
    logits.requires_grad_()
    logp = torch.log_softmax(logits, -1)
    entropy = -(logp.exp() * logp).sum(-1)
    statistic = None if objective.statistic is None else objective.statistic(logits)
    losses = torch.zeros(size, dtype=torch.float64)
    for trajectories in parts:
        here, given = micro_batch(update, prepared, trajectories, logp[:, 0], entropy, statistic)
        weight = torch.from_numpy(prepared.weight[here].astype(np.float64))
        losses = losses.index_add(0, torch.from_numpy(here), weight * objective(given).loss)
    losses.sum().backward()
    assert logits.grad is not None
    return losses.detach(), logits.grad
