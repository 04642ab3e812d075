"""What one batch of training did, as the numbers that the panel, the trackers and the health lines read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """Seconds of wall clock of one batch. `wait` is what the learner idled for rollouts."""

    generate: float = 0.0
    train: float = 0.0
    publish: float = 0.0
    wait: float = 0.0

    @property
    def total(self) -> float:
        return self.generate + self.train + self.publish + self.wait


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """One batch. Shares lie in 0 to 1; what was not measured is None."""

    update: int
    "Optimizer updates so far."
    batch: int
    "Batches so far, this one included."
    batches: int
    "Batches of the whole run."
    reward: float
    "Mean return of the batch's trajectories."
    reward_interval: Interval
    "Its 95 % interval, clustered by task."
    success: float
    "Share of the trajectories."
    call_validity: float | None = None
    "Share of the tool calls that could be read and were valid; None where nothing was called."
    calls: float = 0.0
    "Tool calls per episode."
    offers_tools: bool = True
    "Whether the environment has any tool to call."
    flat_groups: float = 0.0
    "Share of the groups whose advantages are all zero: no gradient comes from them."
    truncated: float = 0.0
    "Share of the trajectories that a limit ended."
    failed: float = 0.0
    "Share of the dispatched episodes that ended in a fault and were dropped."
    staleness: float = 0.0
    "Mean over tokens, in policy versions."
    staleness_max: int = 0
    stale: float = 0.0
    "Share of the groups that were thrown away because they were older than the bound allows."
    tokens_per_episode: float | None = None
    "Sampled, mean over the trajectories."
    environment_reward: float | None = None
    "Mean return without what reward models add."
    null_reward: float | None = None
    "Mean return of an agent that says nothing, measured once before the first batch."
    null_success: float | None = None
    "Share of the tasks in which that agent succeeds."
    tokens_per_second: float = 0.0
    "Sampled tokens over wall clock."
    time: TimeSplit = field(default_factory=TimeSplit)
    mismatch: float | None = None
    "Mean |behavior - learner log-probability| of the sampled tokens before the first update, in nats."
    entropy: float | None = None
    "Nats per sampled token."
    updated: bool = True
    reason: str = ""
    "Why no optimizer step was taken, where none was."
    eta: float | None = None
    "Seconds to the end of the run."
    health: tuple[str, ...] = ()
    "Plain words; empty where all is well."

    def metrics(self) -> dict[str, float]:
        """Flat numbers for `metrics.jsonl` and the trackers; what was not measured is left out."""
        measured = {
            "update": self.update,
            "reward": self.reward,
            "reward_low": self.reward_interval[0],
            "reward_high": self.reward_interval[1],
            "success": self.success,
            "call_validity": self.call_validity,
            "calls": self.calls,
            "flat_groups": self.flat_groups,
            "truncated": self.truncated,
            "failed": self.failed,
            "staleness": self.staleness,
            "staleness_max": self.staleness_max,
            "stale": self.stale,
            "tokens_per_episode": self.tokens_per_episode,
            "environment_reward": self.environment_reward,
            "null_reward": self.null_reward,
            "null_success": self.null_success,
            "offers_tools": float(self.offers_tools),
            "tokens_per_second": self.tokens_per_second,
            "seconds_generate": self.time.generate,
            "seconds_train": self.time.train,
            "seconds_publish": self.time.publish,
            "seconds_wait": self.time.wait,
            "mismatch": self.mismatch,
            "entropy": self.entropy,
            "updated": float(self.updated),
        }
        return {name: float(value) for name, value in measured.items() if value is not None}

    @classmethod
    def of_metrics(cls, line: Mapping[str, Any]) -> Self:
        """What a line of `metrics.jsonl` says of its batch: as much as the health lines look at."""

        def number(name: str, default: float = float("nan")) -> float:
            value = line.get(name)
            return default if value is None else float(value)

        def measured(name: str) -> float | None:
            return line.get(name)

        return cls(
            update=int(number("update", 0)),
            batch=int(number("batch", 0)),
            batches=0,
            reward=number("reward"),
            reward_interval=(number("reward_low"), number("reward_high")),
            success=number("success"),
            call_validity=measured("call_validity"),
            calls=number("calls", 0.0),
            offers_tools=bool(number("offers_tools", 1.0)),
            flat_groups=number("flat_groups", 0.0),
            truncated=number("truncated", 0.0),
            failed=number("failed", 0.0),
            staleness=number("staleness", 0.0),
            staleness_max=int(number("staleness_max", 0)),
            stale=number("stale", 0.0),
            tokens_per_episode=measured("tokens_per_episode"),
            environment_reward=measured("environment_reward"),
            null_reward=measured("null_reward"),
            null_success=measured("null_success"),
            tokens_per_second=number("tokens_per_second", 0.0),
            mismatch=measured("mismatch"),
            entropy=measured("entropy"),
            updated=bool(number("updated", 1.0)),
        )
