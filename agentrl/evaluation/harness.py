"""Plays held-out tasks and keeps one record per attempt.

An attempt that a fault ended is kept apart and never counts as a failure; it is not scored at all.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from agentrl.errors import StoreError
from agentrl.evaluation.attempts import Attempt, attempt_of, by_task
from agentrl.evaluation.statistics import Interval, score_interval
from agentrl.files import write_whole
from agentrl.protocols import Episodes
from agentrl.types import Task


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one policy did on one list of tasks at one temperature."""

    environment: str
    temperature: float
    update: int
    "Policy version that was evaluated."
    attempts: tuple[Attempt, ...]

    def successes(self) -> Mapping[str, Sequence[float]]:
        """Per task the attempts that were scored, 1 or 0."""
        return by_task(self.attempts, lambda attempt: float(attempt.success))

    def success(self) -> Interval:
        return score_interval(self.successes())

    def mean_reward(self) -> float:
        scored = [attempt.reward for attempt in self.attempts if attempt.scored]
        return sum(scored) / max(len(scored), 1)

    def mean_steps(self) -> float:
        scored = [attempt.steps for attempt in self.attempts if attempt.scored]
        return sum(scored) / max(len(scored), 1)

    def call_validity(self) -> float | None:
        calls = sum(attempt.calls for attempt in self.attempts)
        return 1.0 - sum(attempt.wrong_calls for attempt in self.attempts) / calls if calls else None

    def faults(self) -> int:
        return sum(not attempt.scored for attempt in self.attempts)

    def answers(self, tasks: Sequence[Task], attempts: int) -> bool:
        """Whether these tasks, and no others, were played so often."""
        asked = {(task.id, number) for task in tasks for number in range(attempts)}
        return asked == {(attempt.task, attempt.number) for attempt in self.attempts}

    def save(self, path: Path) -> None:
        """Raises `StoreError`."""
        write_whole(path, json.dumps(asdict(self), indent=1).encode())

    @staticmethod
    def load(path: Path) -> Evaluation:
        try:
            fields = json.loads(path.read_text())
            attempts = tuple(Attempt(**attempt) for attempt in fields.pop("attempts"))
            return Evaluation(attempts=attempts, **fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreError(f"{path} is not an evaluation: {error}. Delete it to evaluate anew.") from error


async def evaluate(
    rollout: Episodes, tasks: Sequence[Task], *, attempts: int, temperature: float, update: int
) -> Evaluation:
    """Every task `attempts` times; the rollout's own limits decide how many run at once."""
    plays = [(task, number) for task in tasks for number in range(attempts)]
    played = await asyncio.gather(*(rollout.episode(task, number) for task, number in plays))
    records = [attempt_of(trajectory, number) for (_, number), trajectory in zip(plays, played, strict=True)]
    return Evaluation(tasks[0].env if tasks else "", temperature, update, tuple(records))
