"""Two results, task by task: how large the difference is, how sure, and where it lies.

Only what was played under one suite is compared, on the tasks that both played; a fault is never a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agentrl.errors import ConfigError
from agentrl.evaluation.attempts import Attempt, by_task
from agentrl.evaluation.statistics import Interval, PairedDifference, paired_difference, paired_measure, score_interval

LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two."""

    name: str
    "As it was asked for."
    suite: Mapping[str, str]
    "What makes two results comparable, by name: suite, version, hash."
    attempts: tuple[Attempt, ...]
    conditions: Mapping[str, str] = field(default_factory=dict)
    "What may differ and is then told: policy, temperature, seed, versions of packages."
    costs: tuple[float, ...] = ()
    "Of each attempt, where prices were given."
    folder: str = ""
    "Whose episodes `agentrl view` opens; empty where they were not kept."


@dataclass(frozen=True, slots=True)
class Flip:
    """A task whose mean score differs."""

    task: str
    before: float
    after: float
    episodes_before: tuple[str, ...]
    episodes_after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """B minus A on the tasks that both scored."""

    before: Interval
    after: Interval
    difference: PairedDifference
    won: tuple[Flip, ...]
    "Tasks that B does better, the largest difference first."
    lost: tuple[Flip, ...]
    measures: Mapping[str, PairedDifference]
    "Per attempt: steps, sampled tokens, prompt tokens, seconds, and cost where prices are known."
    faults: tuple[int, int]
    "Attempts of A and of B that a fault ended: they are not scored."
    only: tuple[int, int]
    "Tasks that A alone, and B alone, scored."
    notes: tuple[str, ...] = ()
    "Conditions that differ, in words."

    @property
    def settled(self) -> bool:
        return self.difference.p_value < LEVEL

    def more_tasks(self) -> int | None:
        """How many further tasks show a difference of this size with a chance of 80 %; None where none is seen."""
        needed = self.difference.tasks_to_settle()
        return None if needed is None else max(0 if self.settled else 1, needed - self.difference.interval.tasks)

    def verdict(self) -> str:
        """One sentence."""
        seen = self.difference.interval
        if self.settled:
            return f"B is {'better' if seen.value > 0 else 'worse'} than A: {self.difference.points()}."
        more = self.more_tasks()
        if more is None:
            return (
                f"No difference was seen; one between {100 * seen.low:+.1f} and {100 * seen.high:+.1f} points is "
                "compatible with that."
            )
        return (
            f"No difference is shown: {self.difference.points()}. About {more:,} more tasks with as many attempts "
            "would show one of this size with a chance of 80 %."
        )


def compare(before: Side, after: Side) -> Comparison:
    """Raises `ConfigError` where the two were not played under one suite, or share no scored task."""
    _check_suites(before, after)
    first, last = (by_task(side.attempts, lambda attempt: attempt.score) for side in (before, after))
    shared = [task for task in first if task in last]
    if not shared:
        raise ConfigError(
            f"{before.name} scored {len(first)} tasks and {after.name} {len(last)}, and none is in both. Evaluate the "
            "same tasks (--tasks, --limit) with both."
        )
    difference = paired_difference(first, last)
    played = _scored(before), _scored(after)
    flips = {task: _flip(task, played[0][task], played[1][task]) for task in (*difference.better, *difference.worse)}
    return Comparison(
        before=score_interval({task: first[task] for task in shared}),
        after=score_interval({task: last[task] for task in shared}),
        difference=difference,
        won=_largest(flips[task] for task in difference.better),
        lost=_largest(flips[task] for task in difference.worse),
        measures=_measures(before, after),
        faults=(_faults(before), _faults(after)),
        only=(len(first) - len(shared), len(last) - len(shared)),
        notes=_notes(before, after),
    )


def _check_suites(before: Side, after: Side) -> None:
    keys = [*before.suite, *(key for key in after.suite if key not in before.suite)]
    differing = [key for key in keys if before.suite.get(key) != after.suite.get(key)]
    if differing:
        told = "; ".join(f"{key} {before.suite.get(key)!r} and {after.suite.get(key)!r}" for key in differing)
        raise ConfigError(
            f"{before.name} and {after.name} were not measured on the same thing: {told}. Numbers of two suites cannot "
            "be compared; evaluate both policies again under one of them."
        )


def _notes(before: Side, after: Side) -> tuple[str, ...]:
    keys = [*before.conditions, *(key for key in after.conditions if key not in before.conditions)]
    return tuple(
        f"{key}: {before.conditions.get(key, 'not said')} in A, {after.conditions.get(key, 'not said')} in B"
        for key in keys
        if before.conditions.get(key) != after.conditions.get(key)
    )


def _measures(before: Side, after: Side) -> dict[str, PairedDifference]:
    counted: dict[str, Callable[[Attempt], float]] = {
        "steps": lambda attempt: float(attempt.steps),
        "sampled tokens": lambda attempt: float(attempt.tokens),
        "prompt tokens": lambda attempt: float(attempt.prompt_tokens),
        "seconds": lambda attempt: attempt.seconds,
    }
    found = {}
    for name, value in counted.items():
        first, last = by_task(before.attempts, value), by_task(after.attempts, value)
        if any(any(values) for values in (*first.values(), *last.values())):
            found[name] = paired_measure(first, last)
    if before.costs and after.costs:
        found["cost"] = paired_measure(_costs(before), _costs(after))
    return found


def _costs(side: Side) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for attempt, cost in zip(side.attempts, side.costs, strict=True):
        if attempt.scored:
            found.setdefault(attempt.task, []).append(cost)
    return found


def _flip(task: str, before: Sequence[Attempt], after: Sequence[Attempt]) -> Flip:
    means = [sum(attempt.score for attempt in played) / len(played) for played in (before, after)]
    names = [tuple(attempt.episode for attempt in played if attempt.episode) for played in (before, after)]
    return Flip(task, means[0], means[1], names[0], names[1])


def _scored(side: Side) -> dict[str, list[Attempt]]:
    found: dict[str, list[Attempt]] = {}
    for attempt in side.attempts:
        if attempt.scored:
            found.setdefault(attempt.task, []).append(attempt)
    return found


def _largest(flips: Iterable[Flip]) -> tuple[Flip, ...]:
    return tuple(sorted(flips, key=lambda flip: (-abs(flip.after - flip.before), flip.task)))


def _faults(side: Side) -> int:
    return sum(not attempt.scored for attempt in side.attempts)
