"""Regularisers: KL estimators against published numbers, entropy smoothing that has a gradient, the proxy of Lp-Reg."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from loss_inputs import LOG_RATIO, OLD, inputs, random_update, two_rows
from torch import Tensor

from agentrl.errors import TrainingError
from agentrl.losses import proxies, regularisers
from agentrl.losses.objective import Regulariser

KL = {
    "k1": ([0.3, -0.4, 0.05, 0.5, -0.6, 1.5, 0.0], [1.0] * 7),
    "k2": ([0.045, 0.08, 0.00125, 0.125, 0.18, 1.125, 0], LOG_RATIO.tolist()),
    "k3": (
        [0.040818, 0.091825, 0.001229, 0.106531, 0.222119, 0.72313, 0.0],
        [0.259182, -0.491825, 0.048771, 0.393469, -0.822119, 0.77687, 0],
    ),
}


@pytest.mark.parametrize("estimator", KL)
@pytest.mark.parametrize("anchor", ["reference", "proximal", "teacher"])
def test_kl_reproduces_the_reference(estimator: regularisers.Estimator, anchor: regularisers.Anchor) -> None:
    logprobs = (OLD + LOG_RATIO).requires_grad_()
    got = regularisers.kl(estimator=estimator, anchor=anchor)(inputs(logprobs, **{f"{anchor}_logprobs": OLD}))
    value, gradient = KL[estimator]
    np.testing.assert_allclose(got.detach(), value, atol=2e-6)
    got.sum().backward()
    np.testing.assert_allclose(logprobs.grad, gradient, atol=2e-6)


def test_kl_to_reference_is_the_third_estimator() -> None:
    given = inputs(OLD + LOG_RATIO, reference_logprobs=OLD)
    assert torch.equal(regularisers.kl_to_reference(given), regularisers.kl()(given))


def test_a_kl_term_names_what_it_lacks() -> None:
    with pytest.raises(TrainingError, match="needs_reference"):
        regularisers.kl()(inputs(OLD))
    with pytest.raises(TrainingError, match="needs_teacher"):
        regularisers.kl(anchor="teacher")(inputs(OLD))
    with pytest.raises(TrainingError, match="needs_entropy"):
        regularisers.entropy_bonus(inputs(OLD))


def test_times_the_ratio_the_gradient_of_k3_is_that_of_the_kl() -> None:
    """In expectation over the proximal policy, and not only near it: summed over a whole vocabulary."""
    generator = torch.Generator().manual_seed(0)
    policy, proximal, reference = (torch.randn(6, generator=generator, dtype=torch.float64) for _ in range(3))
    policy.requires_grad_()

    def gradient(loss: Tensor) -> Tensor:
        policy.grad = None
        loss.backward()
        assert policy.grad is not None
        return policy.grad

    logp, mu, ref = (torch.log_softmax(logits, -1) for logits in (policy, proximal, reference))
    exact = gradient((logp.exp() * (logp - ref)).sum())
    ids = torch.arange(6)
    for term, agrees in ((regularisers.by_ratio(regularisers.kl()), True), (regularisers.kl(), False)):
        logp = torch.log_softmax(policy, -1)
        given = inputs(logp, proximal_logprobs=mu, reference_logprobs=ref, row=ids, trajectory=ids)
        found = gradient((mu.exp() * term(given)).sum())
        assert torch.allclose(found, exact, atol=1e-9) == agrees


def test_on_policy_k2_has_the_gradient_of_the_kl_and_k1_has_none() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, reference = (torch.randn(6, generator=generator, dtype=torch.float64) for _ in range(2))
    logits.requires_grad_()
    logp, ref = torch.log_softmax(logits, -1), torch.log_softmax(reference, -1)
    (exact,) = torch.autograd.grad((logp.exp() * (logp - ref)).sum(), logits, retain_graph=True)
    given = inputs(logp, reference_logprobs=ref)
    for estimator, expected in (("k2", exact), ("k1", torch.zeros(6, dtype=torch.float64))):
        loss = (logp.exp().detach() * regularisers.kl(estimator=estimator)(given)).sum()  # type: ignore[arg-type]
        (found,) = torch.autograd.grad(loss, logits, retain_graph=True)
        np.testing.assert_allclose(found, expected, atol=1e-9)


TERMS: dict[str, Regulariser] = {
    "k2": regularisers.kl(estimator="k2"),
    "k3": regularisers.kl(),
    "unbiased": regularisers.by_ratio(regularisers.kl()),
    "absolute": regularisers.absolute_log_ratio,
    "variance": regularisers.ratio_variance,
    "bounded_variance": regularisers.BoundedVariance(),
}


@pytest.mark.parametrize("name", TERMS)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    start = (OLD + LOG_RATIO + 0.011).requires_grad_()

    def total(logprobs: Tensor) -> Tensor:
        return TERMS[name](inputs(logprobs, reference_logprobs=OLD + 0.3)).sum()

    assert torch.autograd.gradcheck(total, (start,), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_a_term_is_least_where_nothing_changed(name: str) -> None:
    logprobs = OLD.clone().requires_grad_()
    value = TERMS[name](inputs(logprobs, reference_logprobs=OLD))
    assert not value.any()
    value.sum().backward()
    np.testing.assert_allclose(logprobs.grad, 0, atol=1e-12)


def test_the_multiplier_of_the_variance_climbs_while_it_is_above_its_limit() -> None:
    part = regularisers.BoundedVariance(limit=0.1, rate=0.5, multiplier=1.0)
    variance = float(np.mean((np.exp(LOG_RATIO.numpy()) - 1) ** 2))
    part.observe(two_rows())
    assert part.multiplier == pytest.approx(1.0 + 0.5 * (variance - 0.1), rel=1e-5)
    for _ in range(100):
        part.observe(two_rows(logprobs=OLD))
    assert part.multiplier == 0.0
    part.observe(two_rows())
    again = regularisers.BoundedVariance()
    again.restore(json.loads(json.dumps(part.state())))
    assert again.multiplier == part.multiplier


def entropies(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_smoothing_pulls_a_step_towards_its_own_past_with_a_gradient() -> None:
    part = regularisers.EntropySmoothing(low=0.8, high=1.2)
    index = torch.tensor([0, 0, 1, 0, 0, 1, 2])
    part.past = {0: 1.0, 1: 2.0}
    entropy = entropies(0.5, 1.0, 2.0, 1.5, 0.8, 3.0, 9.0).requires_grad_()
    loss = part(inputs(OLD, entropy=entropy, index=index))
    # Bounds 0.8 to 1.2 and 1.6 to 2.4; step 2 has no past.
    np.testing.assert_allclose(loss.detach(), [0.3, 0, 0, 0.3, 0, 0.6, 0], atol=1e-12)
    loss.sum().backward()
    np.testing.assert_array_equal(entropy.grad, [-1, 0, 0, 1, 0, 1, 0])


def test_the_past_is_the_mean_of_earlier_updates_per_step() -> None:
    part = regularisers.EntropySmoothing()
    part.observe(two_rows(entropy=entropies(1, 1, 1, 1, 1, 1, 1)))
    assert part.past == {}, "nothing before the first update"
    entropy = entropies(*[5.0] * 7).requires_grad_()
    part(inputs(OLD, entropy=entropy)).sum().backward()
    assert entropy.grad is not None and not entropy.grad.any(), "no past, no pull, and no NaN"
    part.observe(two_rows(entropy=entropies(3, 3, 3, 3, 3, 3, 3)))
    assert part.past == {0: 1.0}
    part.observe(two_rows())
    assert part.past == {0: 2.0}
    update = random_update(12)
    part.observe(update)
    part.observe(update)
    index = update.table.index[update.columns.row]
    assert part.past[1] == pytest.approx(update.entropy[index == 1].mean(), rel=1e-6)


def test_smoothing_remembers_through_json() -> None:
    part, again = regularisers.EntropySmoothing(), regularisers.EntropySmoothing()
    part.observe(random_update(12))
    again.restore(json.loads(json.dumps(part.state())))
    update = random_update(13)
    part.observe(update)
    again.observe(update)
    assert again.past == part.past and again.state() == part.state()


def test_the_pull_towards_the_proxy_is_a_kl_in_value_and_gradient() -> None:
    logits = torch.randn(5, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 2
    logits.requires_grad_()
    logp = torch.log_softmax(logits, -1)
    pi = logp.exp().detach()
    proxy = torch.where(pi >= 0.1 * pi.amax(-1, keepdim=True), pi, 0.0)
    proxy = proxy / proxy.sum(-1, keepdim=True)
    kl = (torch.xlogy(proxy, proxy) - proxy * logp).sum(-1)
    (expected,) = torch.autograd.grad(kl.sum(), logits)
    statistic = proxies.kept_mass(kappa=0.1)(logits)
    np.testing.assert_allclose(statistic[:, 0].detach(), kl.detach(), atol=1e-12)
    np.testing.assert_allclose(statistic[:, 1].detach(), torch.log(0.1 * pi.amax(-1)), atol=1e-12)
    (found,) = torch.autograd.grad(statistic[:, 0].sum(), logits)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_only_tokens_of_the_proxy_are_protected() -> None:
    statistic = torch.tensor([[0.2, -1.5]] * 7, dtype=torch.float64)
    got = proxies.towards_proxy(replace(inputs(OLD), statistic=statistic))
    np.testing.assert_allclose(got, 0.2 * (OLD >= -1.5), rtol=1e-6)
    with pytest.raises(TrainingError, match="kept_mass"):
        proxies.towards_proxy(inputs(OLD))


def test_a_certain_policy_needs_no_proxy() -> None:
    logits = torch.tensor([[50.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    distance = proxies.kept_mass()(logits)[:, 0]
    distance.sum().backward()
    assert distance.item() == pytest.approx(0, abs=1e-9)
    assert torch.isfinite(logits.grad).all()  # type: ignore[arg-type]
