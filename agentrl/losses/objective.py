"""The per-token objective: a ratio, a surrogate, a correction for the sampler, regularisers.

Losses are pure functions of aligned tensors of shape [n], one entry per sampled token, in nats. Nothing is averaged:
the caller multiplies by the batch's scale and sums. What needs the whole update (a quantile, a sum over the batch)
is computed before, from `UpdateColumns`, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from agentrl.batch import UpdateColumns
from agentrl.stateful import Named, held, restore, states
from agentrl.types import JSON, Floats

Proximal = Literal["behavior", "current", "recompute"]
Teacher = Literal["model", "start", "current"]


@dataclass(frozen=True, slots=True, eq=False)
class LossInputs:
    """What an objective may look at; float32 unless said otherwise.

    Every trajectory is whole, and its tokens stand together in the order in which they were sampled.
    """

    logprobs: Tensor
    "[n] current policy at the sampling temperature; carries the gradient."
    behavior_logprobs: Tensor
    "[n] of the weights that sampled."
    proximal_logprobs: Tensor
    "[n] of the weights that the ratio is taken against."
    advantage: Tensor
    "[n]"
    row: Tensor
    "[n] int64, step of the token, local to the micro-batch."
    trajectory: Tensor
    "[n] int64, trajectory of the token, local to the micro-batch."
    reference_logprobs: Tensor | None = None
    entropy: Tensor | None = None
    "[n]; carries a gradient where the objective has `needs_entropy`."
    index: Tensor | None = None
    "[n] int64, place of the token's step in its trajectory."
    teacher_logprobs: Tensor | None = None
    statistic: Tensor | None = None
    "[n] or [n, k]: what `Objective.statistic` made of the token's logits; carries its gradient."
    term_weights: tuple[Tensor | None, ...] = ()
    "Per regulariser, what its `weight` made of the whole update: [n]."


@dataclass(frozen=True, slots=True, eq=False)
class LossOutput:
    loss: Tensor
    "[n], to be scaled and summed; its gradient is the update direction."
    metrics: dict[str, Tensor] = field(default_factory=dict)
    "Sums over the n tokens; the learner divides by the tokens of the batch."


Ratio = Callable[[LossInputs], Tensor]
"[n] log ratio of current to proximal policy, with the gradient form of its granularity."
Surrogate = Callable[[Tensor, LossInputs], LossOutput]
Correction = Callable[[LossInputs], Tensor]
"[n] detached weight for the gap between proximal and behavior policy."
Regulariser = Callable[[LossInputs], Tensor]
Statistic = Callable[[Tensor], Tensor]
"From tempered logits [m, vocabulary] to one number a row, [m], or to k of them, [m, k]."
TokenCredit = Callable[[UpdateColumns], Floats]
"A new advantage per token (stage S4 where it needs the policy's own numbers): [n]."
TokenWeight = Callable[[UpdateColumns], Floats]
"A factor of 0 or more per token (stage S6): [n]. 0 drops the token and leaves the denominators as they are."
Gate = Callable[[UpdateColumns], float]
"Factor of this update's learning rate (stage S11); 0 takes no step."


@dataclass(frozen=True, slots=True)
class Term:
    """A regulariser (stage S9) in the sum."""

    coefficient: float
    loss: Regulariser
    weight: TokenWeight | None = None
    "Where it acts, decided on the whole update."
    teaches: bool = False
    "Where it acts there is something to learn, also without any advantage."


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What an objective decided on the whole update."""

    advantage: Floats
    weight: Floats
    learning_rate: float
    "Factor."
    term_weights: tuple[Floats | None, ...]
    teaches: bool = False
    "A term that teaches acts somewhere."


@dataclass(frozen=True, slots=True)
class Objective:
    """`correction * surrogate(ratio) + sum of regularisers`, per token, and what is decided before it."""

    ratio: Ratio
    surrogate: Surrogate
    correction: Correction | None = None
    regularisers: tuple[Term, ...] = ()
    credits: tuple[TokenCredit, ...] = ()
    "Applied one after the other to the advantage."
    weights: tuple[TokenWeight, ...] = ()
    "Multiplied."
    gate: Gate | None = None
    statistic: Statistic | None = None
    proximal: Proximal = "behavior"
    """What the ratio is taken against: the sampler itself; the current weights (one update a batch, ratio 1); or a
    pass over the whole batch before its first update."""
    needs_entropy: bool = False
    "With its gradient."
    needs_reference: bool = False
    needs_teacher: bool = False
    teacher: Teacher = "model"
    """Who that is: weights of their own; or the policy itself under prompts with a hint, as it was when training
    started or as it is before each batch."""

    @property
    def surveys(self) -> bool:
        """Whether `prepare` wants a pass over the whole update before its gradient."""
        looks = any(term.weight is not None for term in self.regularisers) or any(self._observers())
        return bool(self.credits or self.weights or self.gate or looks)

    def prepare(self, update: UpdateColumns) -> Prepared:
        """Everything that is decided on the whole update; parts that keep a history see it here, once."""
        for observer in self._observers():
            observer.observe(update)
        for credit in self.credits:
            update = replace(update, advantage=credit(update))
        weight = update.weight
        for token_weight in self.weights:
            weight = weight * token_weight(update)
        update = replace(update, weight=weight)
        term_weights = tuple(None if t.weight is None else t.weight(update) for t in self.regularisers)
        acts = zip(self.regularisers, term_weights, strict=True)
        return Prepared(
            advantage=update.advantage.astype(np.float32, copy=False),
            weight=weight.astype(np.float32, copy=False),
            learning_rate=1.0 if self.gate is None else self.gate(update),
            term_weights=term_weights,
            teaches=any(term.teaches and (where is None or bool(np.any(where))) for term, where in acts),
        )

    def __call__(self, inputs: LossInputs) -> LossOutput:
        output = self.surrogate(self.ratio(inputs), inputs)
        loss, metrics = output.loss, dict(output.metrics)
        if self.correction is not None:
            weight = self.correction(inputs)
            loss = loss * weight
            metrics["correction_mean"] = weight.sum()
        for place, term in enumerate(self.regularisers):
            value = term.coefficient * term.loss(inputs)
            where = inputs.term_weights[place] if inputs.term_weights else None
            loss = loss + (value if where is None else value * where)
        return LossOutput(loss, metrics)

    def state(self) -> JSON:
        """Of the parts that keep one, by their place."""
        return states(self._parts())

    def restore(self, state: Mapping[str, JSON]) -> None:
        restore(self._parts(), state)

    def _parts(self) -> Iterator[Named]:
        for kind in ("ratio", "surrogate", "correction", "regularisers", "credits", "weights", "gate"):
            yield from held(kind, getattr(self, kind))

    def _observers(self) -> Iterator[Observer]:
        return (part for _, part in self._parts() if isinstance(part, Observer))


@runtime_checkable
class Observer(Protocol):
    """A part that looks at every update as a whole before its gradient, and keeps what it saw."""

    def observe(self, update: UpdateColumns) -> None: ...


def token_ratio(inputs: LossInputs) -> Tensor:
    """`log pi_theta - log pi_prox` of each token."""
    return inputs.logprobs - inputs.proximal_logprobs


def bounded_exp(log_ratio: Tensor, bound: float = 20.0) -> Tensor:
    """exp with its argument clamped, so that one broken token is a large number and not an infinity."""
    return torch.exp(log_ratio.clamp(-bound, bound))
