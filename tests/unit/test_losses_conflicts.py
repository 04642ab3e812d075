"""GTPO's parts by hand, and VESPO's kernel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import make_groups, make_trajectory
from loss_inputs import ADVANTAGE, LOG_RATIO, OLD, inputs, two_rows

from agentrl.batch import UpdateColumns, build_batch
from agentrl.losses import ratios, surrogates
from agentrl.losses.conflicts import CalmTrajectories, ConflictTokens, EntropyCharge
from agentrl.losses.objective import Objective, token_ratio


def update(tokens: dict[str, list[list[int]]], advantage: dict[str, list[float]]) -> UpdateColumns:
    """One step a trajectory; `tokens` and `advantage` by group."""
    groups = make_groups(
        **{
            name: [make_trajectory(f"{name}{i}", name, [0.0], lengths=[len(t)]) for i, t in enumerate(members)]
            for name, members in tokens.items()
        }
    )
    batch = build_batch(groups)
    flat = np.array([token for members in tokens.values() for t in members for token in t], np.int32)
    values = [a for name, members in tokens.items() for t, a in zip(members, advantage[name], strict=True) for _ in t]
    size = len(flat)
    return UpdateColumns(
        table=batch.table,
        columns=replace(batch.columns, token=flat),
        advantage=np.array(values, np.float32),
        weight=batch.weight,
        logprobs=np.full(size, -1.0, np.float32),
        proximal_logprobs=np.full(size, -1.0, np.float32),
        entropy=np.linspace(0.0, 1.0, size, dtype=np.float32),
    )


def test_shared_beginnings_and_ends_are_in_conflict_and_no_further() -> None:
    good, bad = [1, 2, 3, 4, 9], [1, 2, 7, 4, 9]
    given = update({"g": [good, bad]}, {"g": [1.0, -1.0]})
    # 1 2 from the start; 9 4 from the end, where place 3 counts from there.
    assert ConflictTokens(2.0)(given).tolist() == [2, 2, 1, 2, 2, 0, 0, 1, 0, 0]


def test_a_conflict_is_at_one_place_and_of_opposite_signs() -> None:
    tokens = {"g": [[1, 2, 5], [3, 1, 6]], "h": [[1, 8], [1, 4]]}
    shifted = update(tokens, {"g": [1.0, -1.0], "h": [1.0, 1.0]})
    assert ConflictTokens()(shifted).tolist() == [1.0] * 10
    # Across groups nothing is shared, and a trajectory without an advantage takes no side.
    silent = update(tokens, {"g": [0.0, 0.0], "h": [0.0, -1.0]})
    assert ConflictTokens()(silent).tolist() == [1.0] * 10


def test_ends_of_different_lengths_meet() -> None:
    given = update({"g": [[5, 6, 7], [4, 4, 6, 7]]}, {"g": [1.0, -1.0]})
    assert ConflictTokens(3.0)(given).tolist() == [1, 3, 3, 1, 1, 0, 0]


def test_calm_trajectories_train_and_pay_for_their_entropy() -> None:
    given = update({"g": [[1, 2], [3, 4]], "h": [[5]]}, {"g": [1.0, -1.0], "h": [0.0]})
    given = replace(given, entropy=np.array([0.2, 0.4, 0.7, 0.9, 0.1], np.float32))
    assert CalmTrajectories(0.693)(given).tolist() == [1, 1, 0, 0, 1]
    np.testing.assert_allclose(EntropyCharge(0.1)(given), [0.97, 0.97, -1.08, -1.08, 0.0], rtol=1e-6)


def test_vespos_kernel_is_one_on_policy_and_falls_on_both_sides() -> None:
    logprobs = (OLD + LOG_RATIO).requires_grad_()
    given = inputs(logprobs)
    surrogate = surrogates.vespo(positive=(2.0, 3.0), negative=(3.0, 2.0))
    surrogate(ratios.sequence_prod(given), given).loss.sum().backward()
    # Log weights -.05 and 1.4.
    good = np.exp(2 * -0.05 + 3 * (1 - np.exp(-0.05)))
    bad = np.exp(3 * 1.4 + 2 * (1 - np.exp(1.4)))
    np.testing.assert_allclose(logprobs.grad, [-good] * 3 + [0.8 * bad] * 4, rtol=1e-9)
    same = inputs(OLD.clone().requires_grad_())
    kernel = surrogate(token_ratio(same), same).metrics["kernel_mean"]
    assert kernel.item() == pytest.approx(7.0)


def test_on_policy_vespo_is_reinforce() -> None:
    gradients = []
    for surrogate in (surrogates.vespo(), surrogates.reinforce()):
        logprobs = OLD.clone().requires_grad_()
        Objective(ratios.sequence_prod, surrogate)(inputs(logprobs)).loss.sum().backward()
        gradients.append(logprobs.grad)
    assert torch.equal(gradients[0], gradients[1]) and torch.equal(gradients[0], -ADVANTAGE)


def test_gtpo_decides_on_the_whole_update() -> None:
    from agentrl.methods.entropy import gtpo

    objective = gtpo().objective()
    prepared = objective.prepare(two_rows(entropy=torch.tensor([0.1] * 3 + [2.0] * 4)))
    assert prepared.weight[:3].all() and not prepared.weight[3:].any()
    np.testing.assert_allclose(prepared.advantage[:3], 0.99, rtol=1e-6)
