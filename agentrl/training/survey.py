"""Passes over a batch without a gradient: what an objective wants to know of every token before an update.

Rule: frozen models (reference, teacher) read a batch once; the policy reads it once per update that asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from agentrl.batch import TrainingBatch, UpdateColumns
from agentrl.errors import ConfigError, TrainingError
from agentrl.losses.objective import Teacher
from agentrl.training.asks import Asks
from agentrl.training.logprobs import Reading, TreeModel, tree_model
from agentrl.training.packing import MicroBatch, pack
from agentrl.training.settings import LearnerSettings
from agentrl.training.weights import base_model
from agentrl.types import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Log-probabilities under policies that one batch's updates do not move: float32, one per column of the batch."""

    proximal: Floats
    reference: Floats | None = None
    teacher: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FrozenModel:
    """A model that is read and never trained. `view` makes the policy's own model stand for it while it is read."""

    model: TreeModel
    view: Any = nullcontext

    def logprobs(self, batch: TrainingBatch, micros: Sequence[MicroBatch], temperature: float) -> Floats:
        """Of every column of `micros`, shape [columns of the batch]."""
        manager: AbstractContextManager[Any] = self.view()
        with manager:
            return read(self.model, batch, micros, Reading(temperature))[0]


def frozen_copy(policy: Any, model: Any, role: str) -> FrozenModel:
    """`model` as the `role` ("reference", "teacher") beside `policy`. Raises `ConfigError` where they do not match."""
    ours = base_model(policy).config.get_text_config().vocab_size
    theirs = base_model(model).config.get_text_config().vocab_size
    if ours != theirs:
        raise ConfigError(
            f"the {role} knows {theirs:,} tokens and the policy {ours:,}: log-probabilities can be compared token by "
            "token only under one tokenizer. Choose a model of the same family."
        )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.eval()
    return FrozenModel(tree_model(model))


@dataclass(frozen=True, slots=True)
class Frozen:
    """The frozen models beside a policy."""

    reference: FrozenModel | None = None
    teacher: FrozenModel | None = None


def frozen_models(asks: Asks, policy: TreeModel, start: Any, teacher: Any) -> Frozen:
    """Those that an objective asks for.

    `start` is a copy of the policy as training begins; where there is none, its adapters are switched off to read it.
    Raises `ConfigError` where a teacher is asked for and none is given, or one of another tokenizer.
    """
    begun: FrozenModel | None = None
    if start is not None:
        begun = frozen_copy(policy.model, start, "reference")
    elif asks.start:
        begun = FrozenModel(policy, policy.model.disable_adapter)
    reference = begun if asks.reference else None
    if asks.teacher is None:
        return Frozen(reference)
    if asks.teacher == "start":
        return Frozen(reference, begun)
    if asks.teacher == "current":
        return Frozen(reference, FrozenModel(policy))
    if teacher is None:
        raise ConfigError("the objective learns from a teacher and none is given; set [model] teacher.")
    return Frozen(reference, frozen_copy(policy.model, teacher, "teacher"))


def teacher_logprobs(
    teacher: FrozenModel, who: Teacher, batch: TrainingBatch, micros: Sequence[MicroBatch], settings: LearnerSettings
) -> Floats:
    """What the teacher thinks of the columns of `micros`, behind its own prompts where the batch has some.

    Raises `TrainingError` where the policy would teach itself without being told more than it knew.
    """
    if batch.teacher_contexts is None:
        if who != "model":
            raise TrainingError(
                "the policy is its own teacher and the batch holds no prompts with a hint, so there is nothing to "
                "learn from it. Give the method a `hint`, or a teacher of its own."
            )
        return teacher.logprobs(batch, micros, settings.temperature)
    columns = np.concatenate([micro.tree.column for micro in micros] or [np.zeros(0, np.int64)])
    trajectories = np.unique(batch.table.trajectory[batch.columns.row[columns]]).astype(np.int64)
    told = pack(replace(batch, contexts=batch.teacher_contexts), trajectories, settings.micro_batch_tokens)
    return teacher.logprobs(batch, told, settings.temperature)


def read(
    model: TreeModel, batch: TrainingBatch, micros: Sequence[MicroBatch], reading: Reading
) -> tuple[Floats, Floats]:
    """Log-probability and entropy of every column of `micros`; elsewhere the sampler's log-probability and 0."""
    logprobs = batch.columns.behavior_logprobs.copy()
    entropy = np.zeros_like(logprobs)
    with torch.no_grad():
        for micro in micros:
            scores = model.scores(micro.tree, reading)
            logprobs[micro.tree.column] = scores.logprobs.float().cpu().numpy()
            if scores.entropy is not None:
                entropy[micro.tree.column] = scores.entropy.float().cpu().numpy()
    return logprobs, entropy


def survey(
    model: TreeModel, batch: TrainingBatch, micros: Sequence[MicroBatch], known: Known, temperature: float
) -> tuple[npt.NDArray[np.int64], UpdateColumns]:
    """The columns of one update, ascending, and what is known of them. `model` is the policy as it is now."""
    logprobs, entropy = read(model, batch, micros, Reading(temperature, entropy=True))
    chosen = np.sort(np.concatenate([micro.tree.column for micro in micros]))

    def part(values: Floats | None) -> Floats | None:
        return None if values is None else values[chosen]

    columns = batch.columns
    return chosen, UpdateColumns(
        table=batch.table,
        columns=replace(
            columns,
            token=columns.token[chosen],
            behavior_logprobs=columns.behavior_logprobs[chosen],
            version=columns.version[chosen],
            row=columns.row[chosen],
        ),
        advantage=batch.advantage[chosen],
        weight=batch.weight[chosen],
        logprobs=logprobs[chosen],
        proximal_logprobs=known.proximal[chosen],
        entropy=entropy[chosen],
        reference_logprobs=part(known.reference),
        teacher_logprobs=part(known.teacher),
    )
