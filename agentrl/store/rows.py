"""What the ledger says of one episode without opening it, and how that is read off a trajectory.

Whatever a list of episodes is filtered, sorted or counted by is a column; everything else stays in the payload.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from agentrl.errors import StoreError
from agentrl.outcomes import count_calls, outcome_of
from agentrl.types import Status, Trajectory


@dataclass(frozen=True, slots=True)
class EpisodeRow:
    """What the ledger says of an episode without opening it."""

    id: str
    group: str
    task: str
    state: str
    "issued, done, failed, batched or trained."
    batch: int | None
    "The batch that it is part of, counted from 1, as `Ledger.batched` was told; None where none holds it."
    attempt: int
    status: str
    outcome: str
    "A value of `agentrl.outcomes.Outcome`."
    reward: float
    success: bool
    steps: int
    tokens: int
    "Sampled."
    calls: int
    wrong_calls: int
    started: float | None
    "Unix time."
    seconds: float
    oldest: int | None
    "The oldest policy version that sampled a token of it."
    newest: int | None
    source: str
    forked_from: str | None
    error: str

    def __post_init__(self) -> None:
        # SQLite has no booleans.
        object.__setattr__(self, "success", bool(self.success))


COLUMNS = ", ".join("grp" if field.name == "group" else field.name for field in fields(EpisodeRow))
"The columns of an `EpisodeRow`, in its order."

_TOLD = (
    "attempt", "state", "payload", "status", "reward", "success", "oldest", "newest", "task", "outcome", "steps",
    "tokens", "calls", "wrong_calls", "started", "seconds", "source", "forked_from", "error",
)  # fmt: skip
"What a row says of a trajectory that ended."
FINISH = (
    f"INSERT INTO trajectories (id, grp, member, {', '.join(_TOLD)}) "
    f"VALUES (:id, :grp, -1, {', '.join(f':{name}' for name in _TOLD)}) "
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = :{name}' for name in _TOLD)}, batch = NULL "
    "WHERE trajectories.state IN ('issued', 'failed')"
)

"Writes what `row_of` gives; a trajectory that is batched or trained stays as it is."


def row_of(trajectory: Trajectory, offset: int) -> dict[str, object]:
    """The columns, with the payload at `offset`. Raises `StoreError` for a cancelled one."""
    own = trajectory.own
    versions = [step.versions for step in trajectory.steps if step.trains and step.versions.size]
    calls, wrong_calls = count_calls(trajectory)
    if trajectory.status is Status.CANCELLED:
        raise StoreError(f"trajectory {trajectory.id} was cancelled: it stays issued, so that a resumed run plays it.")
    return {
        "id": trajectory.id,
        "grp": trajectory.group,
        "attempt": trajectory.attempt,
        "state": "done" if trajectory.status.trains else "failed",
        "payload": offset,
        "status": trajectory.status.value,
        "reward": trajectory.reward,
        "success": trajectory.success,
        "oldest": min((int(v.min()) for v in versions), default=None),
        "newest": max((int(v.max()) for v in versions), default=None),
        "task": trajectory.task.id,
        "outcome": outcome_of(trajectory).value,
        "steps": len(trajectory.steps),
        "tokens": sum(len(step.tokens) for step in trajectory.steps),
        "calls": calls,
        "wrong_calls": wrong_calls,
        "started": own[0].timings.started if own else None,
        "seconds": sum(step.timings.total for step in own),
        "source": trajectory.source.value,
        "forked_from": trajectory.forked_from,
        "error": trajectory.error,
    }
