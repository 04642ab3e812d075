"""The learner: from a batch with credit to new weights, in one process.

Rule: without signal the weights do not move. A batch, a part of it or a gradient that says nothing takes no optimiser
step, because Adam's momentum would move the weights all the same.

Conventions. One `update` call makes up to `minibatches` optimiser updates, and `version` counts those made. Full
fine-tuning keeps float32 weights, computing in bfloat16 if asked; LoRA keeps the base in the type it was loaded in and
the adapters in float32. The model stays in evaluation mode (no dropout), so that an engine may share it.
"""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agentrl.batch import Bools, Taught, TrainingBatch
from agentrl.errors import TrainingError
from agentrl.losses.objective import LossInputs, LossOutput, Objective
from agentrl.protocols import UpdateReport
from agentrl.training import checkpoint, logprobs, weights
from agentrl.training.asks import asked
from agentrl.training.dump import save_batch
from agentrl.training.packing import MicroBatch, pack
from agentrl.training.settings import LearnerSettings as LearnerSettings
from agentrl.training.settings import LoraSettings as LoraSettings
from agentrl.training.survey import Known, frozen_models, read, survey, teacher_logprobs
from agentrl.training.tally import Tally
from agentrl.types import JSON, Floats, TokenIds

BAD_IN_A_ROW = 3
"So many non-finite updates one after the other stop the run."


@dataclass(frozen=True, slots=True, eq=False)
class Minibatch:
    """One optimiser update. The arrays have one entry per column of the whole batch."""

    micros: Sequence[MicroBatch]
    scale: Floats
    "Aggregation times weight: 0 drops the token."
    advantage: Floats
    share: np.float32
    "Of the batch's aggregation."
    learning_rate: float = 1.0
    "Factor."
    term_weights: tuple[Floats | None, ...] = ()
    silence: str = ""
    "Why there is nothing to learn from it, where there is not."


class TorchLearner:
    """Implements `protocols.Learner` for a transformers causal language model.

    `model` is trained in place; with `settings.lora` adapters are put into it. `lock` is held while weights are
    written: for an engine that shares `model` and takes the same lock around its own forward passes. `source` is the
    folder that the model came from (its tokenizer files go into every checkpoint). Batches that gave non-finite numbers
    are saved into `dumps`. Where the objective asks for a reference, it is `model` as it is given here: a copy is kept,
    or the adapters are switched off to read it. `teacher` is a model of the same tokenizer, for an objective that asks
    for one.
    """

    def __init__(
        self,
        model: Any,
        objective: Objective | Callable[[LossInputs], LossOutput],
        *,
        settings: LearnerSettings,
        lock: threading.Lock | None = None,
        source: Path | None = None,
        dumps: Path | None = None,
        teacher: Any = None,
    ) -> None:
        self.settings = settings
        self.objective = objective
        self.source = source
        self.version = 0
        "Number of optimiser updates so far."
        self.skipped_in_a_row = 0
        self._lock = lock or threading.Lock()
        self._dumps = dumps
        self._asks = asked(objective)
        # With adapters the policy as it was is read by switching them off.
        start = copy.deepcopy(model) if self._asks.start and not settings.lora else None
        self.model = weights.trainable(model, settings)
        autocast = torch.bfloat16 if settings.compute == "bfloat16" else None
        self.tree_model = logprobs.tree_model(self.model, autocast=autocast, kernel=settings.kernel)
        self._frozen = frozen_models(self._asks, self.tree_model, start, teacher)
        self.trained: dict[str, Tensor] = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = _adam(self.trained.values(), settings)

    def update(self, batch: TrainingBatch) -> UpdateReport:
        """Raises `TrainingError` on the third optimiser update in a row whose loss or gradient is not finite.

        Of the metrics, loss, gradient norm and clipping are means over the minibatches; all else is over the batch.
        """
        started = time.perf_counter()
        if not len(batch.columns):
            return UpdateReport(False, "the method kept no group, or none of them sampled a token", {})
        if not batch.has_signal and not (self._asks.prepares and self._asks.prepares.credits):
            return UpdateReport(False, "no token has an advantage: every group was of equal rewards", {})
        before = self.version
        reasons, metrics, taught = self._update(batch)
        metrics["updates"] = float(self.version - before)
        metrics["seconds"] = time.perf_counter() - started
        updated = self.version > before
        return UpdateReport(updated, "" if updated else reasons[0], metrics, taught)

    def named_tensors(self) -> Mapping[str, Tensor]:
        """Names and types as `from_pretrained` reads them. Adapted layers are merged copies; every other tensor is
        the live weight, to be read before the next update. A tied output head is the embedding and is not repeated:
        an engine that keeps its own copy of the head must be given `embed_tokens` for it too."""
        return weights.merged(self.model)

    def score(self, tokens: TokenIds) -> Floats:
        """`Engine.score` of the learner's own weights: proves that an engine serves what was published."""
        return logprobs.score(self.tree_model, tokens)

    def save(self, folder: Path) -> None:
        checkpoint.save(self, folder)

    def load(self, folder: Path) -> None:
        with self._lock:
            checkpoint.load(self, folder)

    def objective_state(self) -> JSON:
        """What the objective remembers of earlier updates."""
        return self.objective.state() if isinstance(self.objective, Objective) else {}

    def restore_objective(self, state: JSON) -> None:
        if isinstance(self.objective, Objective):
            self.objective.restore(state)

    def _update(self, batch: TrainingBatch) -> tuple[list[str], dict[str, float], Taught]:
        """Why minibatches made no update, the metrics, and what each token was trained with."""
        parts = self._minibatches(batch)
        known = self._known(batch, [micro for part in parts for micro in part.micros])
        tally = Tally(len(batch.columns))
        fresh = (batch.columns.version == self.version) & ~batch.taught & ~batch.guided
        sampled_by = self.version
        reasons = []
        for part in parts:
            if self._asks.prepares is not None:
                part = self._prepared(self._asks.prepares, batch, part, known)
                if part.silence:
                    reasons.append(part.silence)
                    continue
            # After an update of this batch no token is of these weights any more.
            compared = fresh if self.version == sampled_by else np.zeros_like(fresh)
            loss = self._accumulate(batch, part, known, compared, tally)
            norm = float(torch.nn.utils.get_total_norm([p.grad for p in self.trained.values() if p.grad is not None]))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                reasons.append(f"loss {loss:.4g} or gradient norm {norm:.4g} is not finite")
                self._skip(batch, reasons[-1])
                continue
            self.skipped_in_a_row = 0
            if norm == 0:
                reasons.append("the gradient is exactly 0")
            clipped = self._step(norm, part.learning_rate) if norm > 0 else False
            tally.updates.append((loss, norm, clipped))
        self.optimizer.zero_grad(set_to_none=True)
        metrics = {
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "skipped_in_a_row": float(self.skipped_in_a_row),
            "tokens_without_signal": float(len(batch.columns) - tally.columns),
            **tally.metrics(),
        }
        return reasons, metrics, tally.taught

    def _minibatches(self, batch: TrainingBatch) -> list[Minibatch]:
        """One per optimiser update.

        The scale is raised by the share of the batch that the minibatch is, as if it had been aggregated alone, so
        that the learning rate and the clipping mean the same for any number of minibatches. Trajectories whose loss
        and gradient are exactly 0 are not computed; they stay in the denominators. Minibatches without signal fall
        out, but where the objective decides on the whole update: that it does with all tokens at hand.
        """
        row = batch.columns.row
        coefficient = batch.scale * batch.weight
        heard = coefficient * batch.advantage if self._asks.silent else batch.scale
        whole = float(batch.scale.sum(dtype=np.float64))
        found = []
        for groups in np.array_split(np.arange(batch.table.groups), self.settings.minibatches):
            inside = np.isin(batch.table.group[row], groups)
            if self._asks.prepares or np.any(inside & (coefficient * batch.advantage != 0)):
                share = np.float32(float(batch.scale[inside].sum(dtype=np.float64)) / whole)
                trajectories = np.unique(batch.table.trajectory[row[inside & (heard != 0)]]).astype(np.int64)
                micros = pack(batch, trajectories, self.settings.micro_batch_tokens)
                if micros:
                    found.append(Minibatch(micros, coefficient / share, batch.advantage, share))
        return found

    def _known(self, batch: TrainingBatch, micros: Sequence[MicroBatch]) -> Known:
        """What the batch's updates do not change, read before the first of them."""
        temperature = self.settings.temperature
        proximal = batch.columns.behavior_logprobs
        if self._asks.proximal == "recompute":
            proximal = read(self.tree_model, batch, micros, logprobs.Reading(temperature))[0]
        frozen = self._frozen
        reference = None if frozen.reference is None else frozen.reference.logprobs(batch, micros, temperature)
        teacher = None
        if frozen.teacher is not None and self._asks.teacher is not None:
            teacher = teacher_logprobs(frozen.teacher, self._asks.teacher, batch, micros, self.settings)
        return Known(proximal, reference, teacher)

    def _prepared(self, objective: Objective, batch: TrainingBatch, part: Minibatch, known: Known) -> Minibatch:
        """The minibatch with what the objective decided on the whole of it."""
        chosen, update = survey(self.tree_model, batch, part.micros, known, self.settings.temperature)
        if self._asks.proximal == "current":
            update = replace(update, proximal_logprobs=update.logprobs)
        decided = objective.prepare(update)

        def spread(values: Floats) -> Floats:
            column = np.zeros(len(batch.columns), np.float32)
            column[chosen] = values
            return column

        scale = spread(batch.scale[chosen] / part.share * decided.weight)
        advantage = spread(decided.advantage)
        silence = ""
        if decided.learning_rate == 0:
            silence = "the method's gate closed"
        elif not decided.teaches and not np.any(scale * advantage):
            silence = "no token has an advantage after the method's weights"
        return replace(
            part,
            scale=scale,
            advantage=advantage,
            learning_rate=decided.learning_rate,
            term_weights=tuple(None if w is None else spread(w) for w in decided.term_weights),
            silence=silence,
        )

    def _accumulate(self, batch: TrainingBatch, part: Minibatch, known: Known, fresh: Bools, tally: Tally) -> float:
        """Sums the gradient of a minibatch up in the parameters; returns its loss."""
        self.optimizer.zero_grad(set_to_none=True)
        reading = logprobs.Reading(
            self.settings.temperature,
            entropy=self._asks.entropy or self.settings.report_entropy,
            differentiable=self._asks.entropy,
            statistic=self._asks.statistic,
        )
        total = 0.0
        for micro in part.micros:
            column = micro.tree.column
            scores = self.tree_model.scores(micro.tree, reading)
            inputs = self._inputs(batch, part, known, micro, scores)
            output = self.objective(inputs)
            coefficient = self._tensor(part.scale[column])
            # A token of weight 0 is dropped, also where its loss is infinite.
            loss = torch.where(coefficient == 0, 0.0, coefficient * output.loss).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
            tally.add(micro, output, scores.entropy)
            tally.teach(column, inputs, coefficient)
            tally.compare(inputs, self._tensor(fresh[column]))
        return total

    def _inputs(
        self, batch: TrainingBatch, part: Minibatch, known: Known, micro: MicroBatch, scores: logprobs.TokenScores
    ) -> LossInputs:
        column = micro.tree.column
        now = scores.logprobs

        def here(values: Floats | None) -> Tensor | None:
            return None if values is None else self._tensor(values[column])

        return LossInputs(
            logprobs=now,
            behavior_logprobs=self._tensor(batch.columns.behavior_logprobs[column]),
            proximal_logprobs=now.detach()
            if self._asks.proximal == "current"
            else self._tensor(known.proximal[column]),
            advantage=self._tensor(part.advantage[column]),
            row=self._tensor(micro.row),
            trajectory=self._tensor(micro.trajectory),
            reference_logprobs=here(known.reference),
            entropy=scores.entropy if self._asks.entropy else None,
            index=self._tensor(batch.table.index[batch.columns.row[column]].astype(np.int64)),
            teacher_logprobs=here(known.teacher),
            statistic=scores.statistic,
            term_weights=tuple(here(weight) for weight in part.term_weights),
        )

    def _step(self, norm: float, factor: float) -> bool:
        """One optimiser step at `factor` of the learning rate; True where the gradient was clipped for it."""
        clip = 0 < self.settings.gradient_clip < norm
        if clip:
            torch.nn.utils.clip_grads_with_norm_(
                self.trained.values(), self.settings.gradient_clip, torch.tensor(norm, device=self.tree_model.device)
            )
        for group in self.optimizer.param_groups:
            group["lr"] = factor * self._learning_rate()
        with self._lock:
            self.optimizer.step()
        self.version += 1
        return clip

    def _skip(self, batch: TrainingBatch, reason: str) -> None:
        """Count it, keep the batch for a look, and stop where it happens again and again."""
        self.skipped_in_a_row += 1
        saved = "not saved, for no folder was given"
        if self._dumps is not None:
            path = self._dumps / f"nonfinite-{self.version}-{self.skipped_in_a_row}.npz"
            save_batch(batch, path)
            saved = f"saved in {path}"
        if self.skipped_in_a_row >= BAD_IN_A_ROW:
            raise TrainingError(
                f"after update {self.version}, {BAD_IN_A_ROW} updates in a row were skipped: {reason}. The last batch "
                f"is {saved}. Lower learning_rate, check the rewards for huge values, or go back to a checkpoint."
            )

    def _learning_rate(self) -> float:
        warmup = self.settings.warmup_updates
        return self.settings.learning_rate * (min(1.0, (self.version + 1) / warmup) if warmup else 1.0)

    def _tensor(self, values: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.tree_model.device)


def _adam(parameters: Iterable[Tensor], settings: LearnerSettings) -> torch.optim.AdamW:
    """Weights of matrices decay; those of norms and biases do not."""
    found = list(parameters)
    return torch.optim.AdamW(
        [
            {"params": [p for p in found if p.ndim >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in found if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=settings.betas,
    )
