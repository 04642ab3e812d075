"""What bounds one episode, and what bounds all of them together.

Every number here ends something: nothing in a rollout waits without one of these deadlines or slots.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from agentrl.errors import ConfigError


@dataclass(frozen=True, slots=True)
class EpisodeLimits:
    """How an episode is sampled, and where it is cut. Deadlines are in seconds."""

    max_steps: int | None = None
    "Actions per episode. The environment's own `max_steps` applies too; 64 where neither says anything."
    max_tokens: int = 256
    "Sampled tokens per step."
    max_context: int | None = None
    "Prompt and answer of a step together; the engine's where None, and never more than the engine's."
    temperature: float = 1.0
    max_policy_errors: int = 4
    "The episode ends with status policy_error at this many policy errors in a row."
    max_observation: int = 1_000_000
    "Characters of one observation; a longer one is an environment fault."
    reset_deadline: float = 120.0
    "Where the environment names no deadline of its own."
    step_deadline: float = 120.0
    "Where the environment names no deadline of its own."
    generate_deadline: float = 600.0
    reward_deadline: float = 300.0
    "For each reward model."
    episode_deadline: float = 3600.0
    "From the moment the episode has its environment slot."
    close_deadline: float = 40.0

    def __post_init__(self) -> None:
        for name in ("max_steps", "max_tokens", "max_context", "max_policy_errors", "max_observation"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; an episode needs at least 1.")
        if self.temperature < 0:
            raise ConfigError(f"temperature is {self.temperature}; allowed is 0 (greedy) and above.")
        for field in fields(self):
            if field.name.endswith("_deadline") and not getattr(self, field.name) > 0:
                raise ConfigError(f"{field.name} is {getattr(self, field.name)} s; a deadline is above 0.")


@dataclass(frozen=True, slots=True)
class Supervision:
    """How many episodes live at once, how often a fault is retried, and when the run is given up."""

    environment_slots: int = 64
    "Live environments."
    engine_slots: int = 256
    "Requests at the engine."
    attempts: int = 3
    "Tries of one episode, each in a fresh environment with the same task and seed."
    backoff: float = 0.5
    "Seconds before the second try of a failed model or reward request, doubled each time. Environments retry at once."
    failure_window: int = 64
    "Attempts over which the failure rate is taken; more of them where the environment slots ask for it."
    failure_bound: float = 0.5
    "The run stops where a larger share of the window failed."
    stall_deadline: float = 1800.0
    "Seconds without progress of any episode after which the collector gives up and says what each one waits for."

    def __post_init__(self) -> None:
        for name in ("environment_slots", "engine_slots", "attempts", "failure_window"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; at least 1 is needed.")
        if not 0 < self.failure_bound <= 1:
            raise ConfigError(f"failure_bound is {self.failure_bound}; it is a share above 0 and at most 1.")

    @property
    def window(self) -> int:
        """Attempts after which failures that come early cannot be mistaken for failures that are many.

        Of episodes that fail with share p, at most slots * p / (1 - p) have failed by the time that healthy ones
        fill every slot; a window above that at p = failure_bound has to see them end as well.
        """
        bound = self.failure_bound
        early = self.environment_slots * bound / (1 - bound) if bound < 1 else 0
        return max(self.failure_window, int(early) + 1)
