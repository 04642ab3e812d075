"""What a batch asks for, what the collector counts, and what it needs of a ledger.

Counts are of groups unless a field says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agentrl.errors import ConfigError
from agentrl.types import Group, Settlement, Task, Trajectory


@dataclass(frozen=True, slots=True)
class BatchShape:
    """Three numbers make a batch; the rest says what may be in it."""

    groups: int
    "Complete groups per batch."
    group_size: int
    "Episodes dispatched per group."
    minimum_group: int = 2
    "Trajectories that have to be left of a group after faults; with fewer it is dropped."
    max_staleness: int = 0
    "Versions by which the oldest token of a trained group may lag behind the learner. 0 is on-policy."
    versions_per_batch: int = 1
    "Optimiser updates per batch."
    max_dropped: int | None = None
    "Groups dropped while one batch is collected, above which the run stops; 16 batches' worth where None."

    def __post_init__(self) -> None:
        if self.groups < 1 or self.group_size < 1 or self.versions_per_batch < 1 or self.max_staleness < 0:
            raise ConfigError(
                f"groups is {self.groups}, group_size {self.group_size}, versions_per_batch {self.versions_per_batch} "
                f"and max_staleness {self.max_staleness}; at least 1, 1, 1 and 0 are allowed. Raise what is below."
            )
        if not 1 <= self.minimum_group <= self.group_size:
            raise ConfigError(
                f"minimum_group is {self.minimum_group}; allowed is 1 to {self.group_size}, the group size."
            )

    @property
    def ahead(self) -> int:
        """Groups that may live while a batch is trained on."""
        return self.max_staleness // self.versions_per_batch * self.groups

    @property
    def drops_allowed(self) -> int:
        return 16 * self.groups if self.max_dropped is None else self.max_dropped


@dataclass(slots=True)
class CollectorStatistics:
    """Counts since they were last taken."""

    issued: int = 0
    finished: int = 0
    used: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    "By reason: faults, filtered, stale, unscored."
    episodes: dict[str, int] = field(default_factory=dict)
    "Trajectories of finished groups by status."
    forks: dict[str, int] = field(default_factory=dict)
    "Forked episodes by how their world came to the fork: restored, replayed."
    staleness: dict[int, int] = field(default_factory=dict)
    "Used groups by the age of their oldest token, in versions."
    in_flight: int = 0
    "Now."
    ready: int = 0
    "Now: complete and not yet used."

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


class IssuedGroup(Protocol):
    """A group as a ledger gives it back after a restart."""

    @property
    def id(self) -> str: ...

    @property
    def ordinal(self) -> int: ...

    @property
    def task(self) -> Task: ...

    @property
    def recorded(self) -> Mapping[int, Trajectory]:
        """Finished members that may be reused."""
        ...

    @property
    def settled(self) -> Settlement | None:
        """What was said of the group as a whole, where it was complete."""
        ...


class Resumed(Protocol):
    """Where an earlier run left off."""

    @property
    def update(self) -> int:
        """How many batches are behind the weights."""
        ...

    @property
    def ordinal(self) -> int:
        """How many tasks the sampler had given at that moment."""
        ...

    @property
    def groups(self) -> Sequence[IssuedGroup]: ...


class GroupLedger(Protocol):
    """Where groups and trajectories are kept. Blocking: called in a thread, one call at a time."""

    def issue(self, ordinal: int, group: str, task: Task, members: Sequence[str]) -> None: ...

    def finish(self, *trajectories: Trajectory) -> None: ...

    def settle(self, group: str, settlement: Settlement) -> None: ...

    def drop(self, group: str, reason: str) -> None: ...

    def reissue(self, group: str, fresh: str, members: Sequence[str]) -> None: ...

    def batched(self, update: int, trajectories: Sequence[str]) -> None: ...

    def trajectory(self, name: str) -> Trajectory:
        """One that ended. Raises `StoreError` where there is none of that name."""
        ...


def without_filter(group: Group) -> bool:
    """Keep every group."""
    return True
