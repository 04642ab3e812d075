"""How likely a task is won: an estimate per task from the returns that came, older ones counting less.

What is remembered is JSON and bounded: of more than `most` tasks the one that was not seen for longest is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agentrl.errors import ConfigError
from agentrl.types import JSON


@dataclass(slots=True)
class WinRates:
    """A Beta estimate per task: `a <- decay a + r`, `b <- decay b + 1 - r`, and the rate is `a / (a + b)`.

    r is a return in [0, 1]. A task that was never seen has the rate 0.5.
    """

    decay: float = 0.875
    "How much the past counts after each return; 1 forgets nothing. About `1 / (1 - decay)` returns are remembered."
    prior: float = 0.5
    "a and b of a task that was never seen."
    most: int = 100_000
    "Tasks that are remembered."
    counts: dict[str, tuple[float, float]] = field(default_factory=dict, init=False)
    "a and b by task id, the one seen last at the end."

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay <= 1.0 or self.prior <= 0.0 or self.most < 1:
            raise ConfigError(
                f"decay is {self.decay:g}, prior {self.prior:g} and most {self.most}: decay lies from 0 to 1, prior "
                "above 0, and at least 1 task is remembered."
            )

    def rate(self, task: str) -> float:
        a, b = self.counts.get(task, (self.prior, self.prior))
        return a / (a + b)

    def learn(self, task: str, value: float) -> None:
        a, b = self.counts.pop(task, (self.prior, self.prior))
        self.counts[task] = (self.decay * a + value, self.decay * b + 1.0 - value)
        if len(self.counts) > self.most:
            del self.counts[next(iter(self.counts))]

    def state(self) -> JSON:
        return {task: list(pair) for task, pair in self.counts.items()}

    def restore(self, state: JSON) -> None:
        """Raises `ConfigError` where the state is not one of win rates."""
        try:
            self.counts = {str(task): (float(a), float(b)) for task, (a, b) in state.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise ConfigError(f"{state!r} holds no win rates; it is the state of another part.") from error
