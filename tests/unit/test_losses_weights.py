"""Token weights, selections, credits and gates: published numbers, worked examples, identities, memory."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import make_groups, make_trajectory
from loss_inputs import ADVANTAGE, LOG_RATIO, OLD, inputs, random_update, scales, two_rows

from agentrl.batch import UpdateColumns, build_batch
from agentrl.errors import TrainingError
from agentrl.losses import aggregation, credits, gates, regularisers, selection, surrogates, weights
from agentrl.losses.objective import Objective, Term, TokenWeight, token_ratio


def prepared_loss(objective: Objective) -> tuple[float, torch.Tensor]:
    """Loss and gradient under token mean, with what the objective decides on the two rows."""
    prepared = objective.prepare(two_rows())
    logprobs = (OLD + LOG_RATIO).requires_grad_()
    terms = tuple(None if w is None else torch.from_numpy(w).double() for w in prepared.term_weights)
    output = objective(replace(inputs(logprobs), term_weights=terms))
    total = (scales()["token_mean"] * torch.from_numpy(prepared.weight).double() * output.loss).sum()
    total.backward()
    assert logprobs.grad is not None
    return total.item(), logprobs.grad


def test_kl_cov_reproduces_the_reference() -> None:
    unclipped = surrogates.clipped(low=1.0, high=float("inf"))
    term = Term(1.0, regularisers.absolute_log_ratio, selection.CovarianceTop(0.3))
    loss, _ = prepared_loss(Objective(token_ratio, unclipped, regularisers=(term,)))
    assert loss == pytest.approx(0.531704, abs=2e-6)


def test_clip_cov_reproduces_the_reference() -> None:
    clipped = surrogates.clipped(low=0.2, high=0.28, dual=3.0)
    clip = selection.CovarianceClip(share=0.5, lowest=0.1, highest=5.0, low=0.2, high=0.28)
    loss, gradient = prepared_loss(Objective(token_ratio, clipped, weights=(clip,)))
    assert loss == pytest.approx(0.115522, abs=2e-6)
    np.testing.assert_allclose(gradient, [0, -0.09576, 0, 0.188425, 0, 0, 0.114286], atol=2e-6)


def test_clip_cov_drops_no_more_than_its_share_and_the_same_on_a_rerun() -> None:
    update = random_update(1, members=20)
    clip = selection.CovarianceClip(share=0.05, lowest=0.0, highest=np.inf)
    weight = clip(update)
    assert (weight == 0).sum() == int(0.05 * len(update))
    np.testing.assert_array_equal(weight, clip(update))
    other = clip(replace(update, logprobs=update.logprobs - np.float32(1e-3)))
    assert (weight != other).any()


def test_covariance_is_that_of_the_update() -> None:
    update = two_rows()
    advantage, logprobs = update.advantage.astype(np.float64), update.logprobs.astype(np.float64)
    assert selection.covariance(update).mean() == pytest.approx(np.cov(advantage, logprobs, ddof=0)[0, 1], abs=1e-9)


def test_steer_weighs_down_what_changes_the_entropy_most() -> None:
    update = two_rows(entropy=torch.tensor([0.5, 1.0, 2.0, 0.1, 1.5, 0.3, 2.5]))
    pi = (OLD + LOG_RATIO).exp()
    change = (ADVANTAGE / OLD.exp() * pi * (1 - pi) * ((OLD + LOG_RATIO) + torch.from_numpy(update.entropy))).abs()
    weight = weights.Steer(lowest=0.8)(update)
    np.testing.assert_allclose(weight, 0.8 ** (change / change.max()), rtol=1e-5)
    assert weight.min() == pytest.approx(0.8)
    silent = weights.Steer()(replace(update, advantage=np.zeros(7, np.float32)))
    assert silent.tolist() == [1.0] * 7


def test_the_second_moment_is_brought_below_its_limit_by_dropping_the_fewest() -> None:
    gap = torch.tensor([0.1, -0.1, 0.2, 0.0, -0.5, 1.0, 0.1])
    update = two_rows(logprobs=OLD + gap)
    # Squares .01 .01 .04 0 .25 1 .01: without 1 the mean is .0533, without .25 it is .014.
    assert weights.SecondMoment(0.04)(update).tolist() == [1, 1, 1, 1, 0, 0, 1]
    assert weights.SecondMoment(0.06)(update).tolist() == [1, 1, 1, 1, 1, 0, 1]
    assert weights.SecondMoment(9.0)(update).tolist() == [1] * 7
    far = two_rows(logprobs=OLD + gap + 5)
    assert weights.SecondMoment(0.04)(far).tolist() == [0, 0, 0, 0, 1, 0, 0], "the one that moved least stays"


def test_sequences_that_the_policy_has_left_drop_their_bad_tokens() -> None:
    gap = torch.tensor([-0.4, 0.1, -0.1, -0.3, 0.1, -0.1, 0.2])
    # Means: -0.133 and -0.025 nats; the first trajectory is good, the second bad.
    update = two_rows(logprobs=OLD + gap)
    assert weights.OffPolicySequences(1e-4)(update).tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert weights.OffPolicySequences(0.03)(update).tolist() == [1] * 7
    turned = replace(update, advantage=-update.advantage)
    assert weights.OffPolicySequences(0.03)(turned).tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_high_entropy_keeps_a_share_of_the_whole_update() -> None:
    update = random_update(2, members=30)
    kept = selection.HighEntropy(0.2)(update).astype(bool)
    assert kept.mean() == pytest.approx(0.2, abs=1.5 / len(update))
    assert update.entropy[kept].min() > update.entropy[~kept].max()


def test_entropy_steps_keep_whole_steps_of_each_task() -> None:
    groups = make_groups(
        g=[make_trajectory("a", "g", [0.0, 0.0], lengths=[2, 1]), make_trajectory("b", "g", [0.0], lengths=[3])],
        h=[make_trajectory("c", "h", [0.0], lengths=[2])],
    )
    batch = build_batch(groups)
    ones = np.ones(8, np.float32)
    entropy = np.array([3, 1, 1, 0, 0, 4, 0, 0], np.float32)
    update = UpdateColumns(batch.table, batch.columns, ones, ones, -ones, -ones, entropy)
    # Means of g: 2, 1, 1.33; of h: 0.
    assert selection.EntropySteps(0.6)(update).tolist() == [1, 1, 0, 1, 1, 1, 1, 1]
    assert selection.EntropySteps(0.3)(update).tolist() == [1, 1, 0, 0, 0, 0, 1, 1]


def test_advantage_times_entropy_relaxes_over_updates_and_remembers_where_it_is() -> None:
    update = random_update(4, members=40)
    part = selection.AdvantageEntropy(share=0.2, relax=4)
    shares = []
    for _ in range(6):
        part.observe(update)
        weight = part(update)
        shares.append(float(weight.mean()))
    np.testing.assert_allclose(shares, [0.2, 0.4, 0.6, 0.8, 1, 1], atol=1.01 / len(update))
    value = np.abs(update.advantage) * update.entropy
    first = selection.AdvantageEntropy(share=0.2)
    kept = first(update).astype(bool)
    assert value[kept].min() >= value[~kept].max()
    part = selection.AdvantageEntropy(share=0.2, relax=4)
    part.observe(update)
    part.observe(update)
    again = selection.AdvantageEntropy(share=0.2, relax=4)
    again.restore(json.loads(json.dumps(part.state())))
    np.testing.assert_array_equal(again(update), part(update))


def test_the_protected_are_unlikely_and_bad() -> None:
    update = random_update(6, members=40)
    chosen = selection.UnlikelyBad(0.1)(update).astype(bool)
    assert chosen.any()
    assert (update.advantage[chosen] < 0).all()
    assert (update.logprobs[chosen] <= np.quantile(update.logprobs, 0.1)).all()


PARTS: list[TokenWeight] = [
    weights.Steer(),
    weights.SecondMoment(0.1),
    weights.OffPolicySequences(),
    selection.CovarianceTop(0.1),
    selection.HighEntropy(),
    selection.EntropySteps(0.5),
    selection.AdvantageEntropy(),
    selection.UnlikelyBad(0.2),
]


@pytest.mark.parametrize("part", PARTS)
def test_the_order_of_trajectories_says_nothing(part: TokenWeight) -> None:
    update = random_update(7, members=5)
    owner = update.trajectory
    turned = np.concatenate([np.flatnonzero(owner == each) for each in np.unique(owner)[::-1]])

    def moved(values: np.ndarray) -> np.ndarray:
        return values[turned]

    columns = update.columns
    other = replace(
        update,
        columns=replace(
            columns, **{n: moved(getattr(columns, n)) for n in ("token", "behavior_logprobs", "version", "row")}
        ),
        **{n: moved(getattr(update, n)) for n in ("advantage", "weight", "logprobs", "proximal_logprobs", "entropy")},
    )
    np.testing.assert_allclose(part(other), moved(part(update)), rtol=1e-5)


@pytest.mark.parametrize("part", PARTS)
def test_weights_are_finite_and_not_negative(part: TokenWeight) -> None:
    update = random_update(8)
    missing = update.columns.behavior_logprobs.copy()
    missing[::3] = np.nan
    for each in (update, replace(update, columns=replace(update.columns, behavior_logprobs=missing))):
        weight = part(each)
        assert weight.dtype == np.float32 and weight.shape == (len(update),)
        assert np.isfinite(weight).all() and (weight >= 0).all()


def test_distillation_is_the_negated_reverse_kl_sample() -> None:
    update = random_update(9)
    assert update.teacher_logprobs is not None and update.reference_logprobs is not None
    gain = update.teacher_logprobs - update.logprobs
    np.testing.assert_allclose(credits.Distillation()(update), gain, rtol=1e-6)
    np.testing.assert_allclose(
        credits.Distillation(reward=0.5)(update), gain + 0.5 * update.advantage, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(credits.Distillation(bound=0.1)(update), gain.clip(-0.1, 0.1), rtol=1e-6)
    same = replace(update, teacher_logprobs=update.logprobs)
    assert not credits.Distillation()(same).any()


def test_extrapolation_is_reward_times_scale_less_the_kl_to_the_reference() -> None:
    update = random_update(9)
    assert update.teacher_logprobs is not None and update.reference_logprobs is not None
    reward, kl = update.teacher_logprobs - update.reference_logprobs, update.logprobs - update.reference_logprobs
    np.testing.assert_allclose(credits.Distillation(scale=1.5)(update), 1.5 * reward - kl, rtol=1e-4, atol=1e-6)
    # Where teacher and reference are one there is nothing to go beyond.
    same = replace(update, reference_logprobs=update.teacher_logprobs)
    np.testing.assert_allclose(credits.Distillation(scale=3.0)(same), credits.Distillation()(same), rtol=1e-5)


def test_distillation_names_what_it_lacks() -> None:
    update = random_update(9)
    with pytest.raises(TrainingError, match="needs_teacher"):
        credits.Distillation()(replace(update, teacher_logprobs=None))
    with pytest.raises(TrainingError, match="needs_reference"):
        credits.Distillation(scale=2.0)(replace(update, reference_logprobs=None))


def test_the_off_policy_baseline_has_the_least_variance() -> None:
    """Among all constants b, `sum w^2 g^2 (R - b)^2` is smallest at its own."""
    update = random_update(10, members=5)
    part = credits.OffPolicyBaseline(high=2.0)
    got = part(update)
    shifted = part(replace(update, advantage=update.advantage + np.float32(3.0)))
    np.testing.assert_allclose(got, shifted, atol=1e-5)
    owner = update.trajectory
    for group in (0, 1):
        members = np.unique(owner[update.table.group[update.columns.row] == group])
        share, value = [], []
        for each in members:
            mine = owner == each
            gap = (update.logprobs - update.columns.behavior_logprobs)[mine].sum(dtype=np.float64)
            norm = ((1 - np.exp(update.logprobs[mine].astype(np.float64))) ** 2).sum()
            share.append(min(np.exp(gap), 2.0) ** 2 * norm)
            value.append(float(got[mine][0]))
            assert np.ptp(got[mine]) == 0
        assert np.dot(share, value) == pytest.approx(0, abs=1e-5)


def test_effective_sample_size_of_equal_and_of_lonely_weights() -> None:
    equal = two_rows(logprobs=OLD + torch.tensor([0.4] * 3 + [0.3] * 4))
    assert gates.EffectiveSampleSize()(equal) == pytest.approx(1.0)
    lonely = two_rows(logprobs=OLD + torch.tensor([50.0] * 3 + [0.0] * 4))
    assert gates.EffectiveSampleSize()(lonely) == pytest.approx(np.sqrt(1 / 2))
    assert gates.EffectiveSampleSize("token")(lonely) == pytest.approx(np.sqrt(3 / 7))
    # Weights 2 and 1: (2 + 1)^2 / (2 (4 + 1)).
    two = two_rows(logprobs=OLD + torch.tensor([np.log(2), 0, 0, 0, 0, 0, 0]))
    assert gates.EffectiveSampleSize()(two) == pytest.approx(np.sqrt(0.9))
    assert gates.EffectiveSampleSize("step")(two) == pytest.approx(np.sqrt(0.9))


def test_gates_close_on_divergence_and_without_signal() -> None:
    k3 = float(np.mean(np.expm1(LOG_RATIO.numpy()) - LOG_RATIO.numpy()))
    assert gates.KlEarlyStop(k3 + 1e-4)(two_rows()) == 1.0
    assert gates.KlEarlyStop(k3 - 1e-4)(two_rows()) == 0.0
    assert gates.KlEarlyStop(0.0)(two_rows(logprobs=OLD)) == 1.0
    assert gates.no_signal(two_rows()) == 1.0
    assert gates.no_signal(two_rows(advantage=torch.zeros(7))) == 0.0
    both = gates.AllOf((gates.no_signal, gates.EffectiveSampleSize()))
    assert both(two_rows()) == gates.EffectiveSampleSize()(two_rows())
    assert gates.AllOf((gates.KlEarlyStop(0.0), gates.no_signal))(two_rows()) == 0.0


def test_prompt_mean_gives_every_task_one_vote() -> None:
    update = random_update(11)
    scale = aggregation.prompt_mean(update.table, update.columns)
    group = update.table.group[update.columns.row]
    np.testing.assert_allclose([scale[group == g].sum() for g in (0, 1)], 0.5, rtol=1e-5)
