"""What an objective asks of the learner, read once when the two are put together.

Rule: a plain function of `LossInputs` is an objective too; what it does not name it does not ask for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from agentrl.losses.objective import LossInputs, LossOutput, Objective, Proximal, Statistic, Teacher


@dataclass(frozen=True, slots=True)
class Asks:
    """Everything about an objective that the learner acts on."""

    proximal: Proximal
    entropy: bool
    "With its gradient."
    reference: bool
    teacher: Teacher | None
    statistic: Statistic | None
    prepares: Objective | None
    "The objective itself, where it decides something on the whole of an update."
    silent: bool
    "A token of advantage 0 has loss and gradient 0, so it need not be computed."

    @property
    def start(self) -> bool:
        """The policy is read as it was when training began."""
        return self.reference or self.teacher == "start"


def asked(objective: Objective | Callable[[LossInputs], LossOutput]) -> Asks:
    """Of a plain callable, the attributes of the same names as an `Objective`'s fields."""
    whole = objective if isinstance(objective, Objective) else None
    prepares = whole if whole is not None and whole.surveys else None
    return Asks(
        proximal=getattr(objective, "proximal", "behavior"),
        entropy=bool(getattr(objective, "needs_entropy", False)),
        reference=bool(getattr(objective, "needs_reference", False)),
        teacher=whole.teacher if whole is not None and whole.needs_teacher else None,
        statistic=getattr(objective, "statistic", None),
        prepares=prepares,
        silent=prepares is None and _silent_without_advantage(objective),
    )


def _silent_without_advantage(objective: Callable[[LossInputs], LossOutput]) -> bool:
    """True where an advantage of 0 gives loss and gradient 0 (a surrogate without regularisers): seen by trying."""
    if getattr(objective, "regularisers", ()):
        return False
    generator = torch.Generator().manual_seed(0)
    behavior, proximal, logprobs_ = (-3 * torch.rand(16, generator=generator) for _ in range(3))
    logprobs_.requires_grad_()
    entropy = torch.rand(16, generator=generator) - logprobs_
    row = torch.arange(16) // 4
    loss = objective(LossInputs(logprobs_, behavior, proximal, torch.zeros(16), row, row // 2, None, entropy)).loss
    if bool((loss != 0).any()):
        return False
    if loss.requires_grad:
        loss.sum().backward()  # type: ignore[no-untyped-call]
    return logprobs_.grad is None or not bool((logprobs_.grad != 0).any())
