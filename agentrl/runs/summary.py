"""From what a batch was to what its report says: counts over trajectories, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agentrl.batch import Taught, TrainingBatch
from agentrl.evaluation.statistics import score_interval
from agentrl.outcomes import count_calls
from agentrl.protocols import UpdateReport
from agentrl.rewards.returns import environment_return
from agentrl.rollout.accounting import CollectorStatistics
from agentrl.runs.null import NullScore
from agentrl.store.records import Trained
from agentrl.training.report import ProgressReport, TimeSplit
from agentrl.types import Group, Source, Status, Trajectory


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the run stands when a batch is done."""

    batch: int
    batches: int
    version: int
    "Learner's version when the batch was cut."
    failed: float
    "Share of the dispatched episodes that ended in a fault."
    stale: float
    "Share of the groups that were dropped because they were too old."
    offers_tools: bool
    null: NullScore | None
    time: TimeSplit
    eta: float | None


def summarize(
    groups: Sequence[Group], batch: TrainingBatch, report: UpdateReport, progress: Progress
) -> ProgressReport:
    """The report of one batch; health lines are added by who knows the history."""
    trajectories = [trajectory for group in groups for trajectory in group.trajectories]
    rewards = {group.id: [t.reward for t in group.trajectories] for group in groups}
    reward = score_interval(rewards)
    calls, wrong = np.sum([count_calls(t) for t in trajectories], axis=0)
    age = progress.version - batch.columns.version
    return ProgressReport(
        update=progress.version + int(report.metrics.get("updates", 0)),
        batch=progress.batch,
        batches=progress.batches,
        reward=reward.value,
        reward_interval=(reward.low, reward.high),
        success=_share(trajectories, [t.success for t in trajectories]),
        call_validity=float(1 - wrong / calls) if calls else None,
        calls=float(calls) / len(trajectories),
        offers_tools=progress.offers_tools,
        flat_groups=_flat(batch),
        truncated=_share(trajectories, [t.status is Status.TRUNCATED for t in trajectories]),
        failed=progress.failed,
        staleness=float(age.mean()) if len(age) else 0.0,
        staleness_max=int(age.max(initial=0)),
        stale=progress.stale,
        tokens_per_episode=float(np.mean([sum(len(step.tokens) for step in t.steps) for t in trajectories])),
        environment_reward=float(np.mean([environment_return(t) for t in trajectories])),
        null_reward=None if progress.null is None else progress.null.reward,
        null_success=None if progress.null is None else progress.null.success,
        tokens_per_second=len(age) / max(progress.time.total, 1e-9),
        time=progress.time,
        mismatch=report.metrics.get("mismatch"),
        entropy=report.metrics.get("entropy"),
        updated=report.updated,
        reason=report.reason,
        eta=progress.eta,
    )


def trained_columns(batch: TrainingBatch, taught: Taught, number: int) -> list[Trained]:
    """What the update said of each token, a record a trajectory; those without a sampled token have none."""
    names = [trajectory.id for group in batch.groups for trajectory in group.trajectories]
    owner = batch.table.trajectory[batch.columns.row]
    return [
        Trained(
            trajectory=names[place],
            batch=number,
            advantage=taught.advantage[owner == place],
            coefficient=taught.coefficient[owner == place],
            logprobs=taught.logprobs[owner == place],
        )
        for place in np.unique(owner)
    ]


def shape_metrics(groups: Sequence[Group], statistics: CollectorStatistics) -> dict[str, float]:
    """Lengths, mean scores of the steps that have them, and what became of episodes and groups, for `metrics.jsonl`.

    A token that branches share was sampled once: it counts once in `sampled_tokens_per_group`.
    """
    trajectories = [trajectory for group in groups for trajectory in group.trajectories]
    steps = [len(t.steps) for t in trajectories]
    won = [len(t.steps) for t in trajectories if t.success]
    sampled = sum(len(step.tokens) for group in groups for step in group.steps() if step.trains)
    found = {
        "trajectories": float(len(trajectories)),
        "steps_per_episode": float(np.mean(steps)),
        "sampled_tokens_per_group": sampled / max(len(groups), 1),
        "forks": float(sum(t.forks for t in trajectories)),
    }
    taught = [step.source in (Source.TEACHER, Source.EXPERT) for t in trajectories for step in t.steps]
    if any(taught):
        found["taught"] = float(np.mean(taught))
    branches = sum(t.forked_from is not None for t in trajectories)
    if branches:
        found["branches"] = float(branches)
        found |= {f"branches_{how}": float(count) for how, count in sorted(statistics.forks.items())}
    if won:
        found["steps_per_success"] = float(np.mean(won))
    found |= _mean_scores(groups)
    found |= {f"episodes_{status}": float(count) for status, count in sorted(statistics.episodes.items())}
    if guided := sum(bool(t.given) for t in trajectories):
        found["guided"] = float(guided)
    return found | {f"dropped_{reason}": float(count) for reason, count in sorted(statistics.dropped.items())}


def _mean_scores(groups: Sequence[Group]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for step in (step for group in groups for step in group.steps()):
        for name, score in step.scores.items():
            values.setdefault(f"score_{name}", []).append(score)
    return {name: float(np.mean(values[name])) for name in sorted(values)}


def _share(trajectories: Sequence[Trajectory], hits: Sequence[bool]) -> float:
    return sum(hits) / max(len(trajectories), 1)


def _flat(batch: TrainingBatch) -> float:
    """Share of the groups of which no token has an advantage."""
    speaks = batch.advantage * batch.weight != 0
    heard = np.unique(batch.table.group[batch.columns.row[speaks]])
    return 1.0 - len(heard) / max(batch.table.groups, 1)
