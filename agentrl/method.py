"""A method: named parts of one pipeline, from groups to a training batch and an objective.

GRPO, GiGPO and their kin differ only in which parts they name; the loop and the learner know no method's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np

from agentrl.batch import Doubles, StepTable, TrainingBatch, build_batch, build_table, with_credit
from agentrl.credit.rules import CreditRule
from agentrl.credit.turns import generalised_advantages
from agentrl.errors import ConfigError, TrainingError
from agentrl.losses import aggregation
from agentrl.losses.aggregation import Aggregation
from agentrl.rollout.takeover import Takeover
from agentrl.stateful import Named, held, restore, states
from agentrl.training.settings import CriticSettings as CriticSettings
from agentrl.types import JSON, Floats, Group, TokenIds

if TYPE_CHECKING:
    from agentrl.losses.objective import Objective

AggregationName = Literal["token_mean", "trajectory_mean", "step_mean", "prompt_mean", "trajectory_sum"]
Proximal = Literal["behavior", "current", "recompute"]
CorrectionName = Literal["none", "truncated", "masked"]
Curation = Callable[[Sequence[Group]], Sequence[Group]]
"Which trajectories are trained on (stage S5): groups with members dropped, added or replaced."
Keep = Callable[[Group], bool]
"Whether a complete group is worth its place in a batch (stage S5); for one that is not another is played."
Shaping = Callable[[Sequence[Group], StepTable], StepTable]
"New rewards or anchors for the table of these groups (stages S2 and S3); rows keep their order."
BatchColumn = Callable[[TrainingBatch], Floats]
"One number per token of the batch, from what was known when it was sampled."


@runtime_checkable
class Remembers(Protocol):
    """A part that learns from every batch, after it has been asked about it."""

    def remember(self, table: StepTable) -> None: ...


@dataclass(frozen=True, slots=True)
class Needs:
    """What a method cannot do without; a run that lacks it is refused."""

    group: int = 2
    "Members of a group, at least."
    anchors: bool = False
    "The environment gives state keys."
    forks: bool = False
    "The strategy forks episodes."


@dataclass(frozen=True, slots=True)
class Hint:
    """Privileged text: the teacher reads it behind the task's first message, the policy never does."""

    source: Literal["oracle", "answer"]
    "The moves of the environment's oracle, or what `Task.data` holds."
    key: str = ""
    "Of `Task.data`, for an answer."
    frame: str = "{hint}"
    "The text around it."

    def __post_init__(self) -> None:
        if "{hint}" not in self.frame:
            raise ConfigError(f"[method] frame is {self.frame!r}; it has {{hint}} where the hint goes.")
        if (self.source == "answer") != bool(self.key):
            raise ConfigError(
                f"[method] hint is {self.source!r} and answer {self.key!r}: an answer names its key of Task.data, and "
                "the oracle's moves need none."
            )


@dataclass(frozen=True, slots=True)
class Method:
    """One preset of the pipeline; `docs/methods.md` lists ours. The objective (S6 to S11) is made by the learner."""

    name: str
    credit: CreditRule
    "One advantage per step (S4)."
    aggregation: Aggregation
    "Per-token denominators (S10)."
    objective: Callable[[], Objective]
    "Called once by the learner, so that credit can be computed without torch."
    keep: Keep | None = None
    "Asked by the collector before the batch is cut; None keeps every group."
    curations: tuple[Curation, ...] = ()
    shapings: tuple[Shaping, ...] = ()
    token_credits: tuple[BatchColumn, ...] = ()
    "Each gives a new advantage per token."
    token_weights: tuple[BatchColumn, ...] = ()
    "Factors of 0 or more, multiplied (S6)."
    critic: CriticSettings | None = None
    needs: Needs = Needs()
    paper: str = ""
    hint: Hint | None = None
    "What its teacher is told beside what the policy saw."
    takeover: Takeover | None = None
    "Which turns its teacher takes over."
    imitates: bool = False
    "Its objective keeps the tokens of a teacher or an expert apart from the policy's own."

    def columns(self, groups: Sequence[Group], teacher_prompts: Mapping[str, TokenIds] | None = None) -> TrainingBatch:
        """The groups that are trained on, as columns without credit (S2, S3, S5); empty where no group is left.

        `teacher_prompts`, by step, are the prompts with the method's hint.
        """
        for curation in self.curations:
            groups = curation(groups)
        if not groups:
            return build_batch(())
        table = build_table(groups)
        for shaping in self.shapings:
            table = shaping(groups, table)
        if self.needs.anchors and not np.any(table.anchor >= 0):
            raise TrainingError(self._lacks_anchors())
        return build_batch(groups, table, teacher_prompts)

    def assign(self, batch: TrainingBatch) -> TrainingBatch:
        """The columns with advantages, weights and global denominators; parts with a memory take the batch in."""
        if not len(batch.table):
            return batch
        scale = self.aggregation(batch.table, batch.columns)
        ones = np.ones(len(batch.columns), np.float32)
        batch = with_credit(batch, self.credit(batch.table), ones, scale)
        for credit in self.token_credits:
            batch = replace(batch, advantage=credit(batch))
        for weight in self.token_weights:
            batch = replace(batch, weight=batch.weight * weight(batch))
        for _, part in self._parts():
            if isinstance(part, Remembers):
                part.remember(batch.table)
        return batch

    def targets(self, table: StepTable) -> Doubles:
        """What the critic learns: `A + V` of its own discount and trace, shape [rows]."""
        if self.critic is None or table.value is None:
            raise TrainingError(
                f"the method {self.name!r} has no critic to teach, or the batch none of its values. Give the method a "
                "`critic`, and the table the values that it read."
            )
        return generalised_advantages(table, self.critic.gamma, self.critic.trace) + table.value

    def batch(self, groups: Sequence[Group]) -> TrainingBatch:
        """`assign` of `columns`: everything, where no critic stands between."""
        return self.assign(self.columns(groups))

    def check(self, group_size: int, *, state_keys: bool = True, forks: bool = True, experts: bool = False) -> None:
        """Raises `ConfigError` where a run of this shape does not go with the method.

        state_keys: the environment names its states. forks: the strategy forks episodes. experts: it shows an expert's.
        """
        if experts and not self.imitates:
            raise ConfigError(
                f"the strategy puts an expert's episodes into groups, and the method {self.name!r} would train them as "
                'the policy\'s own samples. Set method.name = "bepa", or choose another strategy ("guided").'
            )
        if self.needs.forks and not forks:
            raise ConfigError(
                f"the method {self.name!r} gives credit to episodes that were forked from one another, and the "
                'strategy forks none. Set rollout.strategy to one that does ("entropy_branching", "random_branching", '
                '"tree", "retry_from_step", "recovery", "fission"), or choose the method "grpo".'
            )
        if group_size < self.needs.group:
            raise ConfigError(
                f"rollout.group_size is {group_size}; the method {self.name!r} compares at least {self.needs.group} "
                "trajectories of a task. Raise it, or choose a method without a group baseline (spo, steppo, "
                "reinforce_plus_plus)."
            )
        if self.needs.anchors and not state_keys:
            raise ConfigError(self._lacks_anchors())

    def _lacks_anchors(self) -> str:
        return (
            f"the method {self.name!r} compares steps that were taken in equal states, and the environment gives no "
            "state keys. Give it a `state_key`, choose gigpo_similar, or a method without anchors (grpo, step_return)."
        )

    def state(self) -> JSON:
        """Of the parts that keep one, by their place."""
        return states(self._parts())

    def restore(self, state: Mapping[str, JSON]) -> None:
        restore(self._parts(), state)

    def _parts(self) -> Iterator[Named]:
        for kind in ("credit", "keep", "curations", "shapings", "token_credits", "token_weights"):
            yield from held(kind, getattr(self, kind))


@dataclass(frozen=True, slots=True)
class Clipped:
    """The clipped objective's numbers, shared by most presets."""

    low: float = 0.2
    high: float = 0.28
    dual: float | None = 10.0
    proximal: Proximal = "behavior"
    correction: CorrectionName = "none"
    correction_low: float = 0.5
    correction_high: float = 2.0
    entropy: float = 0.0
    "Coefficient of the entropy bonus."
    kl: float = 0.0
    "Coefficient of the K3 distance to the reference: the weights that training started from."

    def build(self) -> Objective:
        from agentrl.losses import corrections, objective, regularisers, surrogates

        correction: objective.Correction | None = None
        if self.correction == "truncated":
            correction = corrections.truncated(high=self.correction_high)
        elif self.correction == "masked":
            correction = corrections.masked(low=self.correction_low, high=self.correction_high)
        if self.proximal == "behavior" and correction is not None:
            raise ConfigError(
                f"method.objective has correction {self.correction!r} and proximal 'behavior': the ratio already holds "
                "that weight. Use proximal = 'recompute' or 'current', or correction = 'none'."
            )
        terms = [
            objective.Term(coefficient, loss)
            for coefficient, loss in (
                (self.entropy, regularisers.entropy_bonus),
                (self.kl, regularisers.kl_to_reference),
            )
            if coefficient
        ]
        return objective.Objective(
            ratio=objective.token_ratio,
            surrogate=surrogates.clipped(low=self.low, high=self.high, dual=self.dual),
            correction=correction,
            regularisers=tuple(terms),
            proximal=self.proximal,
            needs_entropy=self.entropy != 0.0,
            needs_reference=self.kl != 0.0,
        )


CLIPPED = Clipped()
"The default numbers: clip-higher, a loose dual clip, the sampler as proximal policy."


def aggregate_by(name: AggregationName) -> Aggregation:
    return {
        "token_mean": aggregation.token_mean,
        "trajectory_mean": aggregation.trajectory_mean,
        "step_mean": aggregation.step_mean,
        "prompt_mean": aggregation.prompt_mean,
        "trajectory_sum": aggregation.trajectory_sum,
    }[name]
