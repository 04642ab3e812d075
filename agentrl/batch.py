"""Groups as flat columns: what credit rules read and what the learner trains on.

Nothing here depends on row order, adjacency or a fixed group size. A row is one step of one trajectory; a step
that several branches share is a row in each of them, so a sampled token counts once per trajectory that holds it.
Tokens that the policy did not sample appear in `contexts` only, never in a column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from agentrl.errors import InvalidDataError
from agentrl.types import Floats, Group, Source, Step, TokenIds, Trajectory

Ints = npt.NDArray[np.int32]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class StepTable:
    """One entry per (trajectory, step). Integer columns are ids local to the table."""

    trajectory: Ints
    group: Ints
    index: Ints
    "0-based place of the step in its trajectory."
    step: Ints
    "Equal for rows that are one and the same step, shared by branches."
    reward: Doubles
    anchor: Ints
    "Equal where the environment's state key is equal (in whatever group); -1 where there is none."
    length: Ints
    "Sampled tokens of the step; none where it is of an earlier group and only context."
    terminated: Bools
    truncated: Bools
    error: Bools
    "The step was a policy error."
    tasks: tuple[str, ...]
    "Id of the task behind each group."
    scores: Mapping[str, Doubles]
    "Named parts of the reward; 0 where a step has no such part."
    value: Doubles | None = None
    "A critic's estimate of the return from before the step on, where the method has a critic."
    inherited: Bools | None = None
    "The step was sampled for another trajectory, of which this one is a fork; None where no row was."
    guided: Bools | None = None
    """The policy was shown more than the step's tokens train with, so their log-probabilities are of another context;
    None where it never was."""
    taught: Bools | None = None
    "The step was decided by a teacher or is an expert's; None where none was."

    def __len__(self) -> int:
        return len(self.trajectory)

    @property
    def trajectories(self) -> int:
        return int(self.trajectory.max(initial=-1)) + 1

    @property
    def groups(self) -> int:
        return int(self.group.max(initial=-1)) + 1


@dataclass(frozen=True, slots=True, eq=False)
class TokenColumns:
    """One entry per sampled token of each row."""

    token: TokenIds
    behavior_logprobs: Floats
    version: Ints
    row: Ints
    "Row of the step table."

    def __len__(self) -> int:
        return len(self.token)


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """A token path from an empty context to a leaf, and where its sampled tokens stand in the columns."""

    tokens: TokenIds
    column: npt.NDArray[np.int64]
    "Per token its index in `TokenColumns`, -1 where it is not trained (prompt, observation, or trained elsewhere)."


@dataclass(frozen=True, slots=True, eq=False)
class TrainingBatch:
    """What one update trains on: contexts to compute, and aligned columns to learn from.

    `advantage`, `weight` and `scale` have one entry per token of `columns`. The loss is the sum over tokens of
    `scale * weight * objective`, so any split into micro-batches or ranks sums to the whole.
    """

    table: StepTable
    columns: TokenColumns
    contexts: tuple[Context, ...]
    advantage: Floats
    weight: Floats
    "Per-token weight (stage S6); 0 drops the token and leaves the denominators as they are."
    scale: Floats
    "Aggregation (stage S10): 1 over the global denominator that the method names."
    teacher_contexts: tuple[Context, ...] | None = None
    "The same columns behind other prompts, where a teacher reads more than the policy did. Nothing is trained on them."
    groups: tuple[Group, ...] = ()
    "What the table was made of, in its order; for a learner that reads words."

    def __post_init__(self) -> None:
        sizes = {len(self.columns), len(self.advantage), len(self.weight), len(self.scale)}
        if len(sizes) != 1:
            raise InvalidDataError(f"the columns of a batch have lengths {sorted(sizes)}; they must be equal.")
        if not (np.isfinite(self.advantage).all() and np.isfinite(self.weight).all()):
            bad = int((~np.isfinite(self.advantage)).sum()), int((~np.isfinite(self.weight)).sum())
            raise InvalidDataError(
                f"a credit rule returned {bad[0]} advantages and {bad[1]} weights that are not finite, of "
                f"{sizes.pop()} tokens. Let it guard its divisions: a group may have equal rewards, or one member."
            )

    @property
    def taught(self) -> Bools:
        """[n]: the token is a teacher's or an expert's, not the policy's."""
        return _per_token(self.table.taught, self.columns)

    @property
    def inherited(self) -> Bools:
        """Per token: it was sampled for another trajectory, of which its own is a fork."""
        return _per_token(self.table.inherited, self.columns)

    @property
    def guided(self) -> Bools:
        """Per token: the policy saw more when it was sampled than it trains with."""
        return _per_token(self.table.guided, self.columns)

    @property
    def has_signal(self) -> bool:
        return bool(np.any(self.advantage * self.weight * self.scale))


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """One entry per token of the batch's columns: what the loss was given, not what was meant to be."""

    advantage: Floats
    coefficient: Floats
    "What the token's loss was multiplied with; 0 where it was not trained on."
    logprobs: Floats
    "The learner's, in nats, when the gradient was taken; NaN where it was not computed."


@dataclass(frozen=True, slots=True, eq=False)
class UpdateColumns:
    """What is known of the n tokens of one optimiser update before its gradient is taken: float32 [n], in nats.

    Tokens of one trajectory stand together, in the order in which they were sampled. Statistics over these columns
    (quantiles, sums, an effective sample size) do not depend on micro-batches.
    """

    table: StepTable
    "Of the whole batch; `columns.row` names its rows."
    columns: TokenColumns
    "The n tokens only."
    advantage: Floats
    weight: Floats
    logprobs: Floats
    "Of the weights that the update starts from, at the sampling temperature."
    proximal_logprobs: Floats
    entropy: Floats
    "Of the distribution that each token was drawn from, under the weights that the update starts from."
    reference_logprobs: Floats | None = None
    teacher_logprobs: Floats | None = None

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def trajectory(self) -> Ints:
        """Trajectory of each token, an id of the table."""
        return self.table.trajectory[self.columns.row]

    @property
    def taught(self) -> Bools:
        """[n]: the token is a teacher's or an expert's, not the policy's."""
        return _per_token(self.table.taught, self.columns)


def _per_token(flags: Bools | None, columns: TokenColumns) -> Bools:
    return np.zeros(len(columns), np.bool_) if flags is None else flags[columns.row]


def build_table(groups: Sequence[Group]) -> StepTable:
    """Rows in the order of `groups`; steps that sampled nothing keep their row (their reward counts)."""
    anchors: dict[str, int] = {}
    steps: dict[str, int] = {}
    rows: list[tuple[int, int, Step]] = []
    inherited: list[bool] = []
    guided: list[bool] = []
    trajectory_count = 0
    for group_id, group in enumerate(groups):
        for trajectory in group.trajectories:
            rows.extend((trajectory_count, group_id, step) for step in trajectory.steps)
            shared = len(trajectory.steps) - len(trajectory.own)
            for place, step in enumerate(trajectory.steps):
                inherited.append(place < shared)
                guided.append(len(step.seen) > 0 or (bool(trajectory.given) and place >= shared))
            trajectory_count += 1

    names = sorted({name for _, _, step in rows for name in step.scores})

    def anchor_code(step: Step) -> int:
        return -1 if step.anchor is None else anchors.setdefault(step.anchor, len(anchors))

    return StepTable(
        trajectory=np.array([t for t, _, _ in rows], np.int32),
        group=np.array([g for _, g, _ in rows], np.int32),
        index=np.array([s.index for _, _, s in rows], np.int32),
        step=np.array([steps.setdefault(s.id, len(steps)) for _, _, s in rows], np.int32),
        reward=np.array([s.reward for _, _, s in rows], np.float64),
        anchor=np.array([anchor_code(s) for _, _, s in rows], np.int32),
        length=np.array([len(s.tokens) if s.trains else 0 for _, _, s in rows], np.int32),
        terminated=np.array([s.terminated for _, _, s in rows], np.bool_),
        truncated=np.array([s.truncated for _, _, s in rows], np.bool_),
        error=np.array([bool(s.error) for _, _, s in rows], np.bool_),
        inherited=np.array(inherited, np.bool_),
        guided=np.array(guided, np.bool_),
        tasks=tuple(group.task.id for group in groups),
        scores={name: np.array([s.scores.get(name, 0.0) for _, _, s in rows], np.float64) for name in names},
        taught=np.array([s.source in (Source.TEACHER, Source.EXPERT) for _, _, s in rows], np.bool_),
    )


def build_batch(
    groups: Sequence[Group], table: StepTable | None = None, teacher_prompts: Mapping[str, TokenIds] | None = None
) -> TrainingBatch:
    """Columns and contexts with advantage 0, weight 1 and scale 1; credit fills them in.

    `teacher_prompts` gives, by step, the prompt that a teacher reads where a context begins; what follows is the same.
    """
    table = build_table(groups) if table is None else table
    tokens: list[TokenIds] = []
    logprobs: list[Floats] = []
    versions: list[TokenIds] = []
    contexts: list[Context] = []
    shown: list[Context] = []
    start = 0
    for group in groups:
        for trajectory in group.trajectories:
            starts: dict[str, int] = {}
            for step in trajectory.steps:
                starts[step.id] = start
                if not step.trains:
                    continue
                start += len(step.tokens)
                tokens.append(step.tokens)
                logprobs.append(step.logprobs)
                versions.append(step.versions)
            contexts.extend(_contexts(trajectory, starts, {}))
            if teacher_prompts is not None:
                shown.extend(_contexts(trajectory, starts, teacher_prompts))
    columns = TokenColumns(
        token=_concatenate(tokens, np.int32),
        behavior_logprobs=_concatenate(logprobs, np.float32),
        version=_concatenate(versions, np.int32),
        row=np.repeat(np.arange(len(table), dtype=np.int32), table.length),
    )
    size = len(columns)
    return TrainingBatch(
        table=table,
        columns=columns,
        contexts=tuple(contexts),
        advantage=np.zeros(size, np.float32),
        weight=np.ones(size, np.float32),
        scale=np.ones(size, np.float32),
        teacher_contexts=None if teacher_prompts is None else tuple(shown),
        groups=tuple(groups),
    )


def with_credit(batch: TrainingBatch, advantage: Doubles, weight: Floats, scale: Floats) -> TrainingBatch:
    """`advantage` has one entry per row of the table; it is broadcast to the row's tokens."""
    return replace(batch, advantage=advantage[batch.columns.row].astype(np.float32), weight=weight, scale=scale)


def _contexts(trajectory: Trajectory, starts: dict[str, int], prompts: Mapping[str, TokenIds]) -> list[Context]:
    """One context per leaf of the trajectory's context forest; each step's tokens get their column in one of them.

    `prompts` stand in place of the steps' own.
    """
    extended = {step.context for step in trajectory.steps if step.context is not None}
    placed: set[str] = set()
    found = []
    for leaf in (step for step in trajectory.steps if step.id not in extended):
        tokens: list[TokenIds] = []
        column: list[npt.NDArray[np.int64]] = []
        for step in trajectory.context_of(leaf):
            first, prompt = starts[step.id], prompts.get(step.id, step.prompt)
            tokens += [prompt, step.tokens]
            column.append(np.full(len(prompt), -1, np.int64))
            if step.id in placed or not step.trains:
                column.append(np.full(len(step.tokens), -1, np.int64))
            else:
                column.append(np.arange(first, first + len(step.tokens), dtype=np.int64))
                placed.add(step.id)
        found.append(Context(_concatenate(tokens, np.int32), _concatenate(column, np.int64)))
    return found


def _concatenate(parts: Sequence[npt.NDArray[Any]], dtype: type[Any]) -> npt.NDArray[Any]:
    return np.concatenate(parts).astype(dtype, copy=False) if parts else np.zeros(0, dtype)
