"""The result of an evaluation: what was measured, under what conditions, and what the numbers say.

`results.json` is derived from the folder's ledger and may be made again at any time. Faults are counted apart and
never scored; tasks that are known to be bad are named and not played.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from agentrl.errors import StoreError
from agentrl.evaluation.attempts import Attempt, by_task
from agentrl.evaluation.statistics import Interval, pass_at_k, pass_hat_k, score_interval
from agentrl.files import write_whole
from agentrl.types import JSON

MANIFEST, RESULTS = "evaluation.json", "results.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Conditions:
    """How the policy was sampled: another value is another evaluation."""

    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 256
    "Sampled tokens per answer."


@dataclass(frozen=True, slots=True)
class Prices:
    """Per million tokens, in any currency."""

    prompt: float = 0.0
    completion: float = 0.0

    def of(self, attempt: Attempt) -> float:
        return (attempt.prompt_tokens * self.prompt + attempt.tokens * self.completion) / 1e6


@dataclass(frozen=True, slots=True)
class Manifest:
    """What tells one evaluation from another: two with equal `hash` measure the same thing."""

    suite: str
    version: str
    hash: str
    "Of the suite's version, environment, options, tasks, scoring and limits."
    environment: str
    options: Mapping[str, JSON]
    "The environment's."
    tasks: int
    "In the suite, those that are known to be bad left out."
    known_bad: Mapping[str, str]
    "Tasks that are not played, and why."
    policy: str
    "As it was asked for."
    identity: Mapping[str, JSON]
    "What tells this policy from others: its kind, a fingerprint of its weights, its endpoint, its renderer."
    conditions: Conditions
    distributions: Mapping[str, str]
    "Versions of what was played: agentrl, the suite's and the environment's package."
    command: str = ""
    "What makes or continues this evaluation."
    prices: Prices = field(default_factory=Prices)


@dataclass(frozen=True, slots=True)
class NullRow:
    """What a policy that says nothing scores on the same tasks."""

    score: Interval
    reward: float


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What one policy did on one suite. Attempts are in the suite's order of tasks, then by number."""

    manifest: Manifest
    attempts: tuple[Attempt, ...]
    null: NullRow | None = None
    stopped: str = ""
    "Why it ended before everything asked for was played; empty where it did not."

    def scores(self) -> Mapping[str, Sequence[float]]:
        """Per task the scores of the attempts that no fault ended."""
        return by_task(self.attempts, lambda attempt: attempt.score)

    def successes(self) -> Mapping[str, Sequence[float]]:
        """The same as 1 or 0."""
        return by_task(self.attempts, lambda attempt: float(attempt.success))

    def interval(self) -> Interval | None:
        """The score with its 95 % interval, clustered by task; None where nothing was scored."""
        scores = self.scores()
        return score_interval(scores) if scores else None

    def pass_at(self, k: int) -> float | None:
        """Chance that at least one of k attempts succeeds; mean over the tasks with k scored attempts, None of none."""
        return self._mean_over_tasks(k, pass_at_k)

    def pass_hat(self, k: int) -> float | None:
        """Chance that k attempts all succeed; as `pass_at`."""
        return self._mean_over_tasks(k, pass_hat_k)

    def outcomes(self) -> Mapping[str, int]:
        """Attempts by outcome, the commonest first."""
        return dict(Counter(attempt.outcome for attempt in self.attempts).most_common())

    def faults(self) -> int:
        return sum(not attempt.scored for attempt in self.attempts)

    def call_validity(self) -> float | None:
        calls = sum(attempt.calls for attempt in self.attempts)
        return 1.0 - sum(attempt.wrong_calls for attempt in self.attempts) / calls if calls else None

    def mean(self, value: Callable[[Attempt], float]) -> float:
        """Over the attempts that were scored; 0 of none."""
        scored = [value(attempt) for attempt in self.attempts if attempt.scored]
        return sum(scored) / max(len(scored), 1)

    def cost(self) -> float:
        """Of all attempts, those that a fault ended included."""
        return sum(map(self.manifest.prices.of, self.attempts))

    def digest(self) -> str:
        """Equal for two results that say the same: everything is in it but the clock."""
        timeless = [replace(attempt, seconds=0.0) for attempt in self.attempts]
        return hashlib.sha256(msgspec.json.encode((self.manifest.hash, timeless))).hexdigest()[:12]

    def summary(self) -> dict[str, JSON]:
        """What `results.json` says beside the attempts, for people and scripts; never read back."""
        most = max((len(scores) for scores in self.scores().values()), default=0)
        ks = sorted({k for k in (1, 2, 4, 8, 16, 32, 64) if k < most} | {most}) if most else []
        return {
            "score": self.interval(),
            "tasks": len(self.scores()),
            "attempts": len(self.attempts),
            "faults": self.faults(),
            "pass_at": {str(k): self.pass_at(k) for k in ks},
            "pass_hat": {str(k): self.pass_hat(k) for k in ks},
            "outcomes": self.outcomes(),
            "reward": self.mean(lambda attempt: attempt.reward),
            "steps": self.mean(lambda attempt: attempt.steps),
            "tokens": self.mean(lambda attempt: attempt.tokens),
            "prompt_tokens": self.mean(lambda attempt: attempt.prompt_tokens),
            "call_validity": self.call_validity(),
            "cost": self.cost(),
            "digest": self.digest(),
        }

    def save(self, folder: Path) -> None:
        """As `results.json`, written aside and renamed, so that a reader never sees half of it."""
        told = {
            "format": FORMAT,
            "stopped": self.stopped,
            "manifest": self.manifest,
            "summary": self.summary(),
            "null": self.null,
            "attempts": self.attempts,
        }
        write_json(folder / RESULTS, told)

    def _mean_over_tasks(self, k: int, rule: Callable[[int, int, int], float]) -> float | None:
        tried = [played for played in self.successes().values() if len(played) >= k]
        values = [rule(len(played), int(sum(played)), k) for played in tried]
        return sum(values) / len(values) if values else None


class _File(msgspec.Struct):
    """`results.json` as it is read; its summary is left out."""

    format: int
    manifest: Manifest
    attempts: tuple[Attempt, ...]
    null: NullRow | None = None
    stopped: str = ""


def load_result(folder: Path) -> EvaluationResult:
    """What an evaluation's folder says. Raises `StoreError` where it holds none, or half of one."""
    path = folder / RESULTS
    if not path.is_file():
        begun = (folder / MANIFEST).is_file()
        raise StoreError(
            f"{folder} holds no {RESULTS}: "
            + ("the evaluation was not finished; run its command again." if begun else "it is no evaluation.")
        )
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except (msgspec.MsgspecError, OSError) as error:
        raise StoreError(
            f"{path} is no result of an evaluation: {error}. Run the command of the evaluation again: it makes the "
            "file anew from what was played."
        ) from error
    if file.format != FORMAT:
        raise StoreError(
            f"{path} has format {file.format} and this version of agentrl reads {FORMAT}; read it with the version "
            "that wrote it."
        )
    return EvaluationResult(file.manifest, file.attempts, file.null, file.stopped)


def load_manifest(folder: Path) -> Manifest:
    """Raises `StoreError` where the folder is no evaluation or its `evaluation.json` is torn."""
    path = folder / MANIFEST
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (msgspec.MsgspecError, OSError) as error:
        raise StoreError(f"{path} cannot be read as an evaluation's manifest: {error}.") from error


def write_json(path: Path, value: object) -> None:
    """Whole or not at all. Raises `StoreError`."""
    write_whole(path, msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")
