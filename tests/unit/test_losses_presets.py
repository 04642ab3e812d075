"""Every preset of the objectives: prepared once it knows no micro-batches, its memory is JSON, and it trains."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from builders import make_groups, make_trajectory
from forests import random_batch, tiny_llama
from loss_inputs import loss_and_gradients, micro_batch, random_update

from agentrl.batch import TrainingBatch, build_table
from agentrl.errors import ConfigError
from agentrl.losses.objective import Objective
from agentrl.method import Clipped, Method
from agentrl.methods import distillation, entropy, objectives, offpolicy
from agentrl.plugins import load_host
from agentrl.training.learner import LearnerSettings, TorchLearner
from agentrl.training.logprobs import Reading
from agentrl.training.packing import pack
from agentrl.training.survey import read

PRESETS: dict[str, Callable[[], Method]] = {
    "gspo": objectives.gspo,
    "gspo_step": objectives.gspo_step,
    "cispo": objectives.cispo,
    "sapo": objectives.sapo,
    "gmpo": objectives.gmpo,
    "dppo": objectives.dppo,
    "ctpo": objectives.ctpo,
    "minpro": objectives.minpro,
    "bapo": objectives.bapo,
    "grpo_kl": objectives.grpo_kl,
    "grpo_unbiased_kl": objectives.grpo_unbiased_kl,
    "r2vpo": objectives.r2vpo,
    "clip_cov": entropy.clip_cov,
    "kl_cov": entropy.kl_cov,
    "epo": entropy.epo,
    "steer": entropy.steer,
    "lp_reg": functools.partial(entropy.lp_reg, share=0.5),
    "high_entropy": entropy.high_entropy,
    "d3s": entropy.d3s,
    "entropy_steps": entropy.entropy_steps,
    "decoupled_ppo": offpolicy.decoupled_ppo,
    "decoupled_ppo normalised": functools.partial(offpolicy.decoupled_ppo, weights="normalised"),
    "icepop": offpolicy.icepop,
    "mis": offpolicy.mis,
    "geo_rejection": functools.partial(offpolicy.geo_rejection, low=0.7, high=1.4),
    "m2po": offpolicy.m2po,
    "opsm": offpolicy.opsm,
    "topr": offpolicy.topr,
    "asymre": offpolicy.asymre,
    "opmd": offpolicy.opmd,
    "opmd soft": functools.partial(offpolicy.opmd, baseline="soft"),
    "rec": offpolicy.rec,
    "nft": offpolicy.nft,
    "vcpo": offpolicy.vcpo,
    "opd": distillation.opd,
    "opd extrapolated": functools.partial(distillation.opd, scale=1.5, reward=0.5),
    "gtpo": functools.partial(entropy.gtpo, limit=100.0),
    "vespo": offpolicy.vespo,
}
HOST = load_host()
OPTIONS: dict[str, dict[str, Any]] = {
    "custom": {"credit": [{"name": "episode"}]},
    "normalised_terms": {"weights": {"reward": 1.0}},
}
REST = sorted({entry.name for entry in HOST.entries("methods")} - set(PRESETS))
"Methods that differ in credit and take the loss of others."
EVERY = PRESETS | {
    name: functools.partial(HOST.create, "methods", name, OPTIONS.get(name, {}), given={"host": HOST}) for name in REST
}


@pytest.mark.parametrize("name", EVERY)
def test_micro_batches_sum_to_the_whole(name: str) -> None:
    """Loss per token and gradient of everything, by trajectories, with what was decided on the whole update."""
    objective = EVERY[name]().objective()
    for seed in (20, 21):
        objective.prepare(random_update(seed))  # a past, for what has one
    update = random_update(22)
    prepared = objective.prepare(update)
    assert np.isfinite(prepared.advantage).all() and np.isfinite(prepared.weight).all() and prepared.weight.any()
    members = np.unique(update.trajectory).tolist()
    whole, gradient = loss_and_gradients(objective, update, prepared, [members])
    assert torch.isfinite(whole).all() and torch.isfinite(gradient).all() and gradient.any()
    for parts in ([[each] for each in members], [members[:2], members[2:3], members[3:]]):
        losses, gradients = loss_and_gradients(objective, update, prepared, parts)
        np.testing.assert_allclose(losses, whole, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(gradients, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", EVERY)
def test_no_advantage_trains_nothing_but_what_asks_for_it(name: str) -> None:
    objective = EVERY[name]().objective()
    update = random_update(23)
    update = replace(update, advantage=np.zeros_like(update.advantage))
    prepared = objective.prepare(update)
    _, gradient = loss_and_gradients(objective, update, prepared, [np.unique(update.trajectory).tolist()])
    asks = objective.credits or [term for term in objective.regularisers if term.weight is None]
    # KL-Cov holds tokens of high covariance, and without advantages all covariances are 0: any tokens.
    if not asks and name != "kl_cov":
        assert not gradient.any()


@pytest.mark.parametrize("name", EVERY)
def test_a_restored_objective_goes_on_as_the_one_that_was_saved(name: str) -> None:
    first, second = EVERY[name]().objective(), EVERY[name]().objective()
    for seed in (24, 25):
        first.prepare(random_update(seed))
    second.restore(json.loads(json.dumps(first.state())))
    assert second.state() == first.state()
    update = random_update(26)
    members = [np.unique(update.trajectory).tolist()]
    results = [loss_and_gradients(each, update, each.prepare(update), members) for each in (first, second)]
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


@functools.cache
def sampled() -> TrainingBatch:
    """Episodes with rewards, sampled by nearly the policy that is trained."""
    batch = random_batch(0, groups=2, steps=3, longest=5)
    learner = TorchLearner(tiny_llama(), objective_of("gspo"), settings=LearnerSettings())
    everything = np.arange(batch.table.trajectories)
    now, _ = read(learner.tree_model, batch, pack(batch, everything, 4096), Reading(1.0))
    rng = np.random.default_rng(3)
    value = np.arange(batch.table.trajectories) % 2
    last = batch.table.index == 0
    return replace(
        batch,
        table=replace(batch.table, reward=np.where(last, value[batch.table.trajectory], 0).astype(np.float64)),
        columns=replace(
            batch.columns,
            behavior_logprobs=np.minimum(now + 0.02 * rng.normal(size=len(now)), -1e-6).astype(np.float32),
        ),
    )


def objective_of(name: str) -> Objective:
    return PRESETS[name]().objective()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trains_a_model(name: str) -> None:
    method = PRESETS[name]()
    batch = method.assign(sampled())
    settings = LearnerSettings(learning_rate=1e-3, minibatches=2)
    objective = method.objective()
    teacher = tiny_llama(seed=7) if objective.needs_teacher else None
    learner = TorchLearner(tiny_llama(), objective, settings=settings, teacher=teacher)
    before = {key: tensor.clone() for key, tensor in learner.model.state_dict().items()}
    report = learner.update(batch)
    assert report.updated, report.reason
    assert all(np.isfinite(value) for value in report.metrics.values()), report.metrics
    after = learner.model.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert any(not torch.equal(before[key], after[key]) for key in before)
    json.dumps(learner.objective_state())


def test_shifted_credit_leans_towards_success() -> None:
    table = build_table(
        make_groups(
            g=[make_trajectory("a", "g", [0.0, 1.0]), make_trajectory("b", "g", [0.0])],
            h=[make_trajectory("c", "h", [1.0]), make_trajectory("d", "h", [1.0])],
        )
    )
    # The mean of g is 0.5, of h 1; the baseline lies 0.1 below.
    np.testing.assert_allclose(offpolicy.asymre().credit(table), [0.6, 0.6, -0.4, 0.1, 0.1])


def test_mirror_descent_is_reinforce_slowed_by_its_temperature() -> None:
    update = random_update(27)
    for tau in (0.5, 3.0):
        objective = offpolicy.opmd(tau=tau).objective()
        logprobs = torch.from_numpy(update.logprobs.astype(np.float64)).requires_grad_()
        members = np.unique(update.trajectory).tolist()
        _, given = micro_batch(update, objective.prepare(update), members, logprobs, torch.zeros(len(update)))
        objective(given).loss.sum().backward()
        np.testing.assert_allclose(logprobs.grad, -update.advantage / (1 + tau), rtol=1e-6)


def test_the_soft_baseline_lies_between_mean_and_maximum() -> None:
    groups = make_groups(
        h=[make_trajectory("c", "h", [3.0])],
        g=[make_trajectory(n, "g", [r]) for n, r in (("a", 0.0), ("b", 1.0), ("d", 0.0))],
    )
    table = build_table(groups)
    tau = 0.5
    baseline = tau * np.log((2 + np.exp(1 / tau)) / 3)
    np.testing.assert_allclose(offpolicy.SoftBaseline(tau)(table), [0, -baseline, 1 - baseline, -baseline], atol=1e-12)
    np.testing.assert_allclose(offpolicy.SoftBaseline(1e6)(table), [0, -1 / 3, 2 / 3, -1 / 3], atol=1e-5)
    np.testing.assert_allclose(offpolicy.SoftBaseline(1e-3)(table), [0, -1, 0, -1], atol=2e-3)


def test_a_correction_is_never_multiplied_onto_a_ratio_that_holds_it() -> None:
    for preset in (offpolicy.decoupled_ppo, offpolicy.icepop, offpolicy.mis, offpolicy.geo_rejection):
        assert preset(objective=Clipped(proximal="behavior")).objective().proximal == "recompute"
    with pytest.raises(ConfigError, match="already holds"):
        Clipped(correction="truncated").build()
