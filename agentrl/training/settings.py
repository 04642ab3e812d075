"""What a recipe may say about the learner.

Rule: every number is checked here, before a model is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agentrl.errors import ConfigError


@dataclass(frozen=True, slots=True)
class LoraSettings:
    rank: int = 16
    alpha: int = 32
    targets: str | tuple[str, ...] = "all-linear"
    "Module names, or `all-linear`: every linear layer but the output head."
    seed: int = 0


@dataclass(frozen=True, slots=True)
class LearnerSettings:
    learning_rate: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    "On matrices only."
    warmup_updates: int = 0
    "The learning rate rises linearly over so many updates, then stays."
    gradient_clip: float = 1.0
    "Bound of the global norm; 0 for none."
    minibatches: int = 1
    "Optimiser updates a batch, each on its share of the groups; a group is never split between them."
    micro_batch_tokens: int = 2048
    "Tree tokens of one forward and backward; changes memory and speed, not the gradient."
    temperature: float = 1.0
    "The one that the policy samples with."
    compute: Literal["float32", "bfloat16"] = "float32"
    "bfloat16: autocast over float32 weights. Weights loaded in bfloat16 (LoRA) compute in it anyway."
    gradient_checkpointing: bool = False
    "Not for a model that an engine shares: it switches the engine's cache off."
    report_entropy: bool = True
    kernel: Literal["blocks", "flex"] | None = None
    "Attention over trees; None chooses: flex on CUDA where it works, else blocks."
    lora: LoraSettings | None = None

    def __post_init__(self) -> None:
        positive = ("learning_rate", "temperature", "micro_batch_tokens", "minibatches")
        wrong = [name for name in positive if not getattr(self, name) > 0]
        wrong += [name for name in ("weight_decay", "warmup_updates", "gradient_clip") if getattr(self, name) < 0]
        if wrong:
            raise ConfigError(
                f"the learner was given {', '.join(f'{name} = {getattr(self, name)}' for name in wrong)}; "
                f"{', '.join(positive)} are above 0, weight_decay, warmup_updates and gradient_clip not below 0."
            )


@dataclass(frozen=True, slots=True)
class CriticSettings:
    """A value head on a model of its own, which starts as a copy of the policy."""

    learning_rate: float = 1e-5
    gamma: float = 1.0
    "Discount of the returns that it learns."
    trace: float = 1.0
    "lambda of the returns that it learns: 1 for Monte Carlo returns."
    epochs: int = 1
    "Updates on each batch."
    warmup_batches: int = 0
    "In so many batches the critic alone learns."

    def __post_init__(self) -> None:
        fine = self.learning_rate > 0 and 0 <= self.gamma <= 1 and 0 <= self.trace <= 1
        if not fine or self.epochs < 1 or self.warmup_batches < 0:
            raise ConfigError(
                f"the critic was given {self}; learning_rate is above 0, gamma and trace lie in [0, 1], epochs is at "
                "least 1 and warmup_batches not below 0."
            )
