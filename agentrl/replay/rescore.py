"""Recorded episodes under another reward: what each would have earned, step by step.

The environment's own reward is what is left when every recorded term is taken away; what a judge says comes on top.
Nothing is written over, and a judge that stays silent is an error and no zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import msgspec

from agentrl.errors import StoreError
from agentrl.outcomes import outcome_of
from agentrl.replay.rerun import Rerun, rerun
from agentrl.replay.script import Script, first_divergence
from agentrl.replay.source import Recorded
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.rollout.rewarding import Judges, RewardTerm, without
from agentrl.types import JSON, Group, Status, Trajectory


@dataclass(frozen=True, slots=True)
class Rescored:
    """One episode under both rewards."""

    episode: str
    task: str
    before: float
    "Return as it was recorded."
    after: float
    outcome_before: str
    outcome_after: str
    rewards: tuple[float, ...]
    "Of each step, the new ones."

    @property
    def change(self) -> float:
        return self.after - self.before

    @property
    def changed(self) -> bool:
        return self.change != 0 or self.outcome_before != self.outcome_after


async def rescore(recorded: Recorded, names: Sequence[str], terms: Sequence[RewardTerm]) -> list[Rescored]:
    """Episodes that a fault ended are left out: they were never scored. Raises `JudgesFailed`.

    A term that compares the members of a group is shown the whole group, whichever of them are asked for.
    """
    judges = Judges(terms, EpisodeLimits().reward_deadline, Supervision())
    wanted, found = set(names), []
    for group in _groups(recorded, names, whole=judges.compare):
        bare = (replace(t, steps=tuple(without(step, recorded.terms) for step in t.steps)) for t in group.trajectories)
        scored = tuple([await judges.score(trajectory) for trajectory in bare])
        settled, _ = await judges.settle(replace(group, trajectories=scored))
        pairs = zip(group.trajectories, settled.trajectories, strict=True)
        found += [_beside(before, after) for before, after in pairs if before.id in wanted]
    return found


async def regrade(recorded: Recorded, names: Sequence[str]) -> tuple[list[Rescored], list[Rerun]]:
    """The environment's reward as it is now: the actions are played again, and the new rewards are taken.

    Second: the episodes in which something else than the reward differs, or that could not be played.
    """
    found, apart = [], []
    for one in await rerun(recorded, names):
        if one.recorded is None or one.now is None or not one.recorded.status.trains:
            apart.append(one)
            continue
        otherwise = first_divergence(_paid_as(one.recorded, one.now), one.now)
        if otherwise is not None:
            apart.append(replace(one, divergence=otherwise))
            continue
        rewards = tuple(result.reward for result in one.now.results)
        old, new = one.recorded, one.now
        task = old.task.id
        found.append(Rescored(one.episode, task, old.reward, new.reward, old.outcome, new.outcome, rewards))
    return found, apart


def free_name(folder: Path) -> Path:
    """`rescored-001.json` in the folder, or the first of these names that is free."""
    return next(path for n in count(1) if not (path := folder / f"rescored-{n:03d}.json").exists())


def save_rescored(path: Path, what: JSON, found: Sequence[Rescored]) -> None:
    """`what` says which reward it was. Raises `StoreError` where the file is there already."""
    told = {"reward": what, "episodes": found}
    try:
        with path.open("xb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n")
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}. Choose another --out.") from error


def _groups(recorded: Recorded, names: Sequence[str], *, whole: bool) -> Iterator[Group]:
    chosen: dict[str, list[str]] = {}
    for name in names:
        for row in recorded.reader.rows("id = ?", (name,)):
            if Status(row.status).trains:
                chosen.setdefault(row.group, []).append(row.id)
    for group, ids in chosen.items():
        if whole:
            all_of_it = recorded.reader.group(group)
            yield replace(all_of_it, trajectories=tuple(t for t in all_of_it.trajectories if t.status.trains))
        else:
            members = tuple(map(recorded.reader.trajectory, ids))
            yield Group(group, members[0].task, members)


def _beside(before: Trajectory, after: Trajectory) -> Rescored:
    return Rescored(
        episode=before.id,
        task=before.task.id,
        before=before.reward,
        after=after.reward,
        outcome_before=outcome_of(before).value,
        outcome_after=outcome_of(after).value,
        rewards=tuple(step.reward for step in after.steps),
    )


def _paid_as(recorded: Script, now: Script) -> Script:
    """`recorded` with the rewards and scores of `now`."""
    pairs = zip(recorded.results, now.results, strict=False)
    paid = tuple(replace(old, reward=new.reward, scores=new.scores) for old, new in pairs)
    return replace(recorded, results=(*paid, *recorded.results[len(paid) :]), outcome=now.outcome)
