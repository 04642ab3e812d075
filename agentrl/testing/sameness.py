"""Checks that the same actions give the same episode: again, beside another copy, and after a restore.

Recorded episodes are replayed action by action, so what is compared does not depend on an agent.
"""

from __future__ import annotations

import asyncio
import json
from itertools import zip_longest
from typing import Any

from agentrl.blame import AuthorFault
from agentrl.divergence import Divergence
from agentrl.testing.episodes import Episode, advance, begin, blaming, difference, replay
from agentrl.testing.report import CheckResult, failed, passed, skipped
from agentrl.testing.subject import Subject
from agentrl.types import StepResult

_REPLAYS = 6
"Recorded episodes that are replayed, at most."


async def check_replay(subject: Subject) -> CheckResult:
    """Same task, same actions, in a fresh instance: the same observations, rewards and state keys."""
    pairs = zip_longest(subject.oracle[: _REPLAYS // 2], subject.random[: _REPLAYS // 2])
    recorded = [episode for pair in pairs for episode in pair if episode is not None]
    count = 0
    for episode in subject.pace.in_time("same_seed", recorded):
        async with subject.opened() as environment:
            again = await replay(environment, episode)
        count += 1
        if found := difference(episode, again):
            what = f"task {episode.task.id!r} played twice with the same actions: {_told(found)}"
            advice = "Draw from random.Random(task.seed) only; no clock, no set order, nothing kept on class or module."
            return failed("same_seed", what, subject.where_step(episode, found.step), advice)
    return passed("same_seed", f"{count} episodes replayed, equal number for number")


async def check_parallel(subject: Subject) -> CheckResult:
    """Two copies, step by step in turn: on one task with different actions, and on two tasks."""
    first = subject.oracle or subject.random
    second = subject.random or subject.oracle
    others = [episode for episode in second if episode is not first[0]]
    same = [episode for episode in others if episode.task.id == first[0].task.id]
    different = [episode for episode in (*first, *others) if episode.task.id != first[0].task.id]
    pairs = [(first[0], other[0]) for other in (same, different) if other]
    advice = "Keep state on `self`, set in `reset`; nothing on the class, the module or a fixed file name."
    for one, other in pairs:
        beside = f"beside another copy (tasks {one.task.id!r} and {other.task.id!r})"
        try:
            played = await _interleave(subject, one, other)
        except AuthorFault as fault:
            if fault.kind == "deadline":
                raise
            return failed("parallel", f"what went well alone fails {beside}: {fault}", fault.where, advice)
        for alone, again in zip((one, other), played, strict=True):
            if found := difference(alone, again):
                what = f"task {alone.task.id!r} {beside} is not as alone: {_told(found)}"
                return failed("parallel", what, subject.where_step(alone, found.step), advice)
    return passed("parallel", f"{len(pairs)} pairs of copies played in turns, each as alone")


async def check_snapshot(subject: Subject) -> CheckResult:
    """Back to the same state key and the same future, in the same instance and in a new one."""
    where = subject.where("restore", "snapshot", "reset")
    async with subject.opened() as environment:
        offered = hasattr(environment, "snapshot"), hasattr(environment, "restore")
    if offered == (False, False):
        return skipped("snapshot", "offers none")
    recorded = max([*subject.oracle, *subject.random], key=lambda episode: len(episode.actions))
    half = len(recorded.actions) // 2
    async with subject.opened() as environment, subject.opened() as other:
        episode = await begin(environment, recorded.task)
        for action in recorded.actions[:half]:
            await advance(environment, episode, action)
        world: Any = environment
        with blaming(environment, "snapshot"):
            snapshot = await world.snapshot()
        if json.loads(json.dumps(snapshot)) != snapshot:
            return failed("snapshot", "it changes on its way through JSON", where, "Use lists, not tuples; str keys.")
        for action in recorded.actions[half:]:
            await advance(environment, episode, action)
        await begin(other, recorded.task)
        for name, target in (("the same instance", environment), ("a new instance", other)):
            back: Any = target
            with blaming(target, "restore"):
                shown = await back.restore(snapshot)
            key = episode.observations[half].state_key
            if shown.state_key != key:
                what = f"in {name} after {half} steps the state_key was {key!r}, after restore {shown.state_key!r}"
                return failed("snapshot", what, where, "Let `snapshot` hold all that `state_key` reads.")
            future = Episode(recorded.task, episode.first, list(recorded.actions[:half]), episode.results[:half])
            for action in recorded.actions[half:]:
                await advance(target, future, action)
            if found := difference(recorded, future):
                what = f"in {name} the episode goes on otherwise: {_told(found)}"
                return failed("snapshot", what, where, "Let `snapshot` hold all that changes after `reset`.")
    return passed("snapshot", f"restored after {half} of {len(recorded.actions)} steps, same key and same future")


def _told(found: Divergence) -> str:
    return f"{f'at step {found.step}' if found.step >= 0 else 'at the reset'} {found}"


async def _interleave(subject: Subject, one: Episode, other: Episode) -> tuple[Episode, Episode]:
    async with subject.opened() as left, subject.opened() as right:
        played = await begin(left, one.task), await begin(right, other.task)
        for pair in zip_longest(one.actions, other.actions):
            turns = [
                advance(world, episode, action)
                for world, episode, action in zip((left, right), played, pair, strict=True)
                if action is not None and not episode.ended
            ]
            await _both(turns)
        return played


async def _both(turns: list[Any]) -> list[StepResult]:
    """At once, where they wait for anything; every one is awaited, also when another fails."""
    results = await asyncio.gather(*turns, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if isinstance(result, StepResult)]
