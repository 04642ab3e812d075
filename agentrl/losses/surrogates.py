"""Surrogates: what is maximised (stage S8). One function per objective; bounds that adapt are in `trust_regions`.

Rule: a surrogate takes the [n] log ratio of any granularity and returns [n] losses; a token of advantage 0 gives loss
and gradient 0, except where the docstring says otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentrl.losses.objective import LossInputs, LossOutput, Surrogate, bounded_exp
from agentrl.losses.segments import segment_mean


def clipped(*, low: float = 0.2, high: float = 0.2, dual: float | None = None) -> Surrogate:
    """PPO's pessimistic clip (Schulman et al. 2017, eq. 7): `-min(rho A, clip(rho, 1-low, 1+high) A)`.

    Different bounds are DAPO's clip-higher. `dual` c > 1 bounds the loss at `-c A` where A < 0 (Ye et al. 2020,
    eq. 5): without it a large ratio on a bad token is not bounded at all.
    """

    def loss(log_ratio: Tensor, inputs: LossInputs) -> LossOutput:
        ratio = bounded_exp(log_ratio)
        return pessimistic(ratio, ratio.clamp(1.0 - low, 1.0 + high), inputs.advantage, dual)

    return loss


def pessimistic(ratio: Tensor, bounded: Tensor, advantage: Tensor, dual: float | Tensor | None) -> LossOutput:
    """The larger loss of `ratio` and `bounded`; with `dual` it is at most `-dual A` where A < 0."""
    plain, other = -advantage * ratio, -advantage * bounded
    value = torch.maximum(plain, other)
    if dual is not None:
        value = torch.where(advantage < 0, torch.minimum(value, -advantage * dual), value)
    with torch.no_grad():
        cut = other > plain
        metrics = {
            "clip_fraction_high": (cut & (advantage > 0)).sum(),
            "clip_fraction_low": (cut & (advantage < 0)).sum(),
            "ratio_mean": ratio.sum(),
        }
    return LossOutput(value, metrics)


def reinforce() -> Surrogate:
    """`-A log pi`: the plain policy gradient, no ratio and no trust region."""

    def loss(log_ratio: Tensor, inputs: LossInputs) -> LossOutput:
        return LossOutput(-inputs.advantage * inputs.logprobs)

    return loss


def weighted_reinforce(*, high: float | None = None) -> Surrogate:
    """`-sg(rho) A log pi`: the policy gradient with importance weights, cut at `high`. None leaves them whole."""

    def loss(log_ratio: Tensor, inputs: LossInputs) -> LossOutput:
        ratio = bounded_exp(log_ratio.detach())
        weight = ratio if high is None else ratio.clamp(max=high)
        return LossOutput(-weight * inputs.advantage * inputs.logprobs, {"ratio_mean": ratio.sum()})

    return loss


def cispo(*, low: float = 1.0, high: float = 0.28) -> Surrogate:
    """`-sg(clip(rho, 1-low, 1+high)) A log pi` (MiniMax-M1, 2025): a cut weight, but no token without gradient.

    The paper has no lower bound, which is low 1. Its upper bound is not given; 0.28 is DAPO's.
    """
    return cispo_between(lowest=1.0 - low, highest=1.0 + high)


def cispo_between(*, lowest: float, highest: float) -> Surrogate:
    """`cispo` with its bounds as ratios, the other convention in use."""

    def loss(log_ratio: Tensor, inputs: LossInputs) -> LossOutput:
        ratio = bounded_exp(log_ratio.detach())
        weight = ratio.clamp(lowest, highest)
        metrics = {"clip_fraction": (weight != ratio).sum(), "ratio_mean": ratio.sum()}
        return LossOutput(-weight * inputs.advantage * inputs.logprobs, metrics)

    return loss


def topr(*, low: float = 0.0, high: float = 1.0) -> Surrogate:
    """Tapered off-policy REINFORCE (Le Roux et al. 2025): good tokens as if on-policy, bad ones tapered.

    `-alpha A log pi`, alpha 1 where A > 0, else `clip(rho, low, high)`, detached. The paper's ratio is
    `sequence_prod` against the sampler; with `token_ratio` it is the variant of later implementations.
    """

    def loss(log_ratio: Tensor, inputs: LossInputs) -> LossOutput:
        ratio = bounded_exp(log_ratio.detach())
        weight = torch.where(inputs.advantage > 0, torch.ones_like(ratio), ratio.clamp(low, high))
        return LossOutput(-weight * inputs.advantage * inputs.logprobs, {"ratio_mean": ratio.sum()})

    return loss


def sapo(*, positive: float = 1.0, negative: float = 1.05) -> Surrogate:
    """Soft adaptive gate (Gao et al. 2025): `-A (4 / tau) sigmoid(tau (rho - 1))`, tau by the sign of A.

    The gate's slope is 1 at ratio 1 and falls smoothly with distance, where a clip would cut.
    """

    def loss(log_ratio: Tensor, inputs: LossInputs) -> LossOutput:
        ratio = bounded_exp(log_ratio)
        tau = torch.where(inputs.advantage > 0, ratio.new_tensor(positive), ratio.new_tensor(negative))
        gate = torch.sigmoid(tau * (ratio - 1.0)) * 4.0 / tau
        return LossOutput(-inputs.advantage * gate, {"ratio_mean": ratio.detach().sum()})

    return loss


def gmpo(*, low: float = 0.4, high: float = 0.4) -> Surrogate:
    """Geometric-mean policy optimisation (Zhao et al. 2025): `-A prod_t(clip rho_t)^(1/T)`.

    Log ratios are cut to [-low, high], nats, where that makes the objective smaller. Give it `token_ratio` and
    the aggregation trajectory_mean: its tokens then add up to the trajectory's geometric mean and to its gradient.
    """

    def loss(log_ratio: Tensor, inputs: LossInputs) -> LossOutput:
        sign = inputs.advantage.sign()
        cut = sign * torch.minimum(sign * log_ratio, sign * log_ratio.clamp(-low, high))
        mean = segment_mean(cut.detach(), inputs.trajectory)
        value = -inputs.advantage * bounded_exp(mean + cut - cut.detach())
        return LossOutput(value, {"clip_fraction": (cut != log_ratio).sum(), "ratio_mean": mean.exp().sum()})

    return loss


def nft(*, floor: float = 1.0) -> Surrogate:
    """Negative-aware fine-tuning (Chen et al. 2025): likelihood of successes and of the implied failures.

    For rewards of 0 or 1 and `A = r - p`, p the group's success rate: `-log rho` for a success, else
    `-log max((1 - p rho) / (1 - p), floor)`, whose maximum lets the gradient through. The paper's weights of
    prompts are left out.
    """

    def loss(log_ratio: Tensor, inputs: LossInputs) -> LossOutput:
        ratio = bounded_exp(log_ratio)
        rate = (-inputs.advantage).clamp(0.0, 1.0 - 1e-6)
        implied = (1.0 - rate * ratio) / (1.0 - rate)
        implied = implied + (implied.clamp(min=floor) - implied).detach()
        value = torch.where(inputs.advantage > 0, -log_ratio, -torch.log(implied))
        # A group without failures or without successes says nothing.
        return LossOutput(torch.where(inputs.advantage == 0, 0.0, value), {"ratio_mean": ratio.detach().sum()})

    return loss


def vespo(*, positive: tuple[float, float] = (2.0, 3.0), negative: tuple[float, float] = (3.0, 2.0)) -> Surrogate:
    """`-sg(phi(w)) A log pi` with `phi(w) = w^k e^(lambda (1 - w))`, k and lambda by the sign of A (VESPO, 2026).

    phi is 1 at w = 1 and falls on both sides of its top at `k / lambda`. The paper's w is `sequence_prod` against the
    sampler.
    """

    def loss(log_ratio: Tensor, inputs: LossInputs) -> LossOutput:
        log_weight = log_ratio.detach().clamp(-20.0, 20.0)
        good = inputs.advantage >= 0
        power = torch.where(good, log_weight.new_tensor(positive[0]), log_weight.new_tensor(negative[0]))
        rate = torch.where(good, log_weight.new_tensor(positive[1]), log_weight.new_tensor(negative[1]))
        kernel = torch.exp(power * log_weight + rate * (1.0 - log_weight.exp()))
        return LossOutput(-kernel * inputs.advantage * inputs.logprobs, {"kernel_mean": kernel.sum()})

    return loss


def negative_log_likelihood() -> Surrogate:
    """`-log pi`: supervised fine-tuning; the advantage is not looked at."""

    def loss(log_ratio: Tensor, inputs: LossInputs) -> LossOutput:
        return LossOutput(-inputs.logprobs)

    return loss


def scaled(surrogate: Surrogate, factor: float) -> Surrogate:
    """`factor` times the loss."""

    def loss(log_ratio: Tensor, inputs: LossInputs) -> LossOutput:
        output = surrogate(log_ratio, inputs)
        return LossOutput(factor * output.loss, output.metrics)

    return loss
