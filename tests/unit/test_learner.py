"""The learner: what moves the weights, what does not, and what is reported."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forests import VOCABULARY, random_batch, row_by_row, tiny_llama, tiny_qwen3

from agentrl.batch import Context, TrainingBatch, UpdateColumns
from agentrl.errors import ConfigError, TrainingError
from agentrl.losses.objective import LossInputs, LossOutput, Objective, Proximal, Term, token_ratio
from agentrl.losses.regularisers import kl_to_reference
from agentrl.losses.surrogates import clipped, reinforce
from agentrl.training.dump import load_batch
from agentrl.training.learner import LearnerSettings, LoraSettings, TorchLearner

SGD = LearnerSettings(learning_rate=1e-3, gradient_clip=0.0)


@dataclass(frozen=True)
class PolicyGradient:
    """-A * ratio, with an entropy bonus where asked."""

    proximal: Proximal = "behavior"
    bonus: float = 0.0
    needs_reference: bool = False

    @property
    def needs_entropy(self) -> bool:
        return self.bonus != 0

    def __call__(self, inputs: LossInputs) -> LossOutput:
        loss = -inputs.advantage * torch.exp(inputs.logprobs - inputs.proximal_logprobs)
        if inputs.entropy is not None:
            loss = loss - self.bonus * inputs.entropy
        return LossOutput(loss, {"advantage": inputs.advantage.sum()})


def gradient_of(learner: TorchLearner, batch: TrainingBatch) -> dict[str, torch.Tensor]:
    """What the optimiser was given: the change of Adam's first moment, undone."""
    report = learner.update(batch)
    assert report.updated, report.reason
    return {
        name: learner.optimizer.state[parameter]["exp_avg"].clone() / (1 - learner.settings.betas[0])
        for name, parameter in learner.trained.items()
    }


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen3])
def test_the_gradient_is_that_of_rows_one_at_a_time(make: Callable[[], Any]) -> None:
    batch = random_batch(0)
    reference = make()
    logprobs, entropy = row_by_row(reference, batch, 0.7)
    inputs = LossInputs(
        logprobs,
        torch.from_numpy(batch.columns.behavior_logprobs),
        torch.from_numpy(batch.columns.behavior_logprobs),
        torch.from_numpy(batch.advantage),
        torch.zeros(0),
        torch.zeros(0),
        entropy=entropy,
    )
    objective = PolicyGradient(bonus=0.01)
    (torch.from_numpy(batch.scale * batch.weight) * objective(inputs).loss).sum().backward()
    learner = TorchLearner(make(), objective, settings=replace(SGD, temperature=0.7))
    for name, found in gradient_of(learner, batch).items():
        wanted = dict(reference.named_parameters())[name].grad
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("budget", [1, 60, 150])
def test_micro_batches_sum_to_the_whole(budget: int) -> None:
    batch = random_batch(1)
    whole = gradient_of(TorchLearner(tiny_llama(), PolicyGradient(), settings=SGD), batch)
    learner = TorchLearner(tiny_llama(), PolicyGradient(), settings=replace(SGD, micro_batch_tokens=budget))
    for name, found in gradient_of(learner, batch).items():
        torch.testing.assert_close(found, whole[name], atol=1e-6, rtol=1e-4)


def test_environment_tokens_change_nothing() -> None:
    """The last observation of a context is seen by no sampled token: other ids there give the same update."""
    batch = random_batch(2)
    tail = np.array([1, 2, 3], np.int32)
    contexts = [
        Context(np.concatenate([c.tokens, (tail + i) % VOCABULARY]), np.concatenate([c.column, [-1, -1, -1]]))
        for i, c in enumerate(batch.contexts)
    ]
    one, other = (TorchLearner(tiny_llama(), PolicyGradient(), settings=SGD) for _ in range(2))
    before = gradient_of(one, batch)
    for name, found in gradient_of(other, replace(batch, contexts=tuple(contexts))).items():
        torch.testing.assert_close(found, before[name], atol=1e-6, rtol=1e-4)


def test_a_batch_without_signal_leaves_the_weights_bit_identical_after_momentum() -> None:
    model = tiny_llama()
    learner = TorchLearner(model, PolicyGradient(), settings=SGD)
    batch = random_batch(3)
    assert learner.update(batch).updated
    before, moments = weights_of(model), [s["exp_avg"].clone() for s in learner.optimizer.state.values()]
    silent = replace(batch, advantage=np.zeros_like(batch.advantage))
    report = learner.update(silent)
    assert not report.updated and "no token has an advantage" in report.reason
    assert learner.version == 1
    assert same(before, weights_of(model))
    after = [s["exp_avg"] for s in learner.optimizer.state.values()]
    assert all(torch.equal(a, b) for a, b in zip(moments, after, strict=True))


def test_a_gradient_of_zero_takes_no_step_either() -> None:
    class Flat(PolicyGradient):
        def __call__(self, inputs: LossInputs) -> LossOutput:
            return LossOutput(inputs.advantage * inputs.logprobs.clamp(max=-1e6))

    model = tiny_llama()
    learner = TorchLearner(model, Flat(), settings=SGD)
    before = weights_of(model)
    report = learner.update(random_batch(3))
    assert report.reason == "the gradient is exactly 0"
    assert same(before, weights_of(model))


def test_trajectories_without_signal_cost_nothing_and_change_nothing() -> None:
    batch = random_batch(4)
    quiet = batch.table.group[batch.columns.row] == 1
    batch = replace(batch, advantage=np.where(quiet, 0, batch.advantage).astype(np.float32))
    lean = TorchLearner(tiny_llama(), PolicyGradient(), settings=SGD)
    full = TorchLearner(tiny_llama(), PolicyGradient(bonus=1e-30), settings=SGD)
    report = lean.update(batch)
    assert report.metrics["tokens_without_signal"] == quiet.sum()
    assert full.update(batch).metrics["tokens_without_signal"] == 0
    for name in lean.trained:
        torch.testing.assert_close(lean.trained[name], full.trained[name], atol=1e-6, rtol=1e-5)


def test_a_non_finite_batch_is_skipped_saved_and_stops_the_run_at_the_third(tmp_path: Path) -> None:
    model = tiny_llama()
    learner = TorchLearner(model, PolicyGradient(), settings=SGD, dumps=tmp_path)
    good = random_batch(5)
    behavior = good.columns.behavior_logprobs.copy()
    behavior[3] = -np.inf
    bad = replace(good, columns=replace(good.columns, behavior_logprobs=behavior))
    before = weights_of(model)
    for _ in range(2):
        report = learner.update(bad)
        assert not report.updated and "not finite" in report.reason
    assert same(before, weights_of(model)) and not learner.optimizer.state
    assert learner.update(good).updated
    assert learner.skipped_in_a_row == 0
    learner.update(bad)
    learner.update(bad)
    with pytest.raises(TrainingError, match=r"nonfinite-1-3\.npz"):
        learner.update(bad)
    stored = load_batch(tmp_path / "nonfinite-1-3.npz")
    np.testing.assert_array_equal(stored.columns.behavior_logprobs, behavior)
    assert [c.tokens.tolist() for c in stored.contexts] == [c.tokens.tolist() for c in bad.contexts]


def test_a_token_of_weight_zero_is_dropped() -> None:
    batch = random_batch(6)
    weight = batch.weight.copy()
    weight[::3] = 0
    other = batch.advantage.copy()
    other[::3] = 100
    one, two = (TorchLearner(tiny_llama(), PolicyGradient(), settings=SGD) for _ in range(2))
    expected = gradient_of(one, replace(batch, weight=weight))
    for name, found in gradient_of(two, replace(batch, weight=weight, advantage=other)).items():
        assert torch.equal(found, expected[name])


def test_clipping_bounds_the_global_norm() -> None:
    batch = random_batch(7)
    free = TorchLearner(tiny_llama(), PolicyGradient(), settings=SGD)
    norm = free.update(batch).metrics["gradient_norm"]
    learner = TorchLearner(tiny_llama(), PolicyGradient(), settings=replace(SGD, gradient_clip=norm / 4))
    clipped = gradient_of(learner, batch)
    total = torch.stack([g.square().sum() for g in clipped.values()]).sum().sqrt()
    assert float(total) == pytest.approx(norm / 4, rel=1e-4)


def test_warmup_raises_the_learning_rate_linearly() -> None:
    learner = TorchLearner(tiny_llama(), PolicyGradient(), settings=replace(SGD, warmup_updates=4))
    rates = [learner.update(random_batch(8)).metrics["learning_rate"] for _ in range(5)]
    assert rates == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3])


def test_mismatch_is_measured_on_tokens_of_these_weights_only() -> None:
    model = tiny_llama()
    learner = TorchLearner(model, PolicyGradient(), settings=SGD)
    batch = random_batch(9)
    exact = row_by_row(model, batch)[0].detach().numpy() + np.float32(0.01)
    batch = replace(batch, columns=replace(batch.columns, behavior_logprobs=exact))
    report = learner.update(batch)
    assert report.metrics["mismatch"] == pytest.approx(0.01, abs=1e-4)
    assert report.metrics["mismatch_k3"] == pytest.approx(np.exp(-0.01) - 1 + 0.01, abs=1e-5)
    assert report.metrics["advantage"] == pytest.approx(float(batch.advantage.mean()), abs=1e-6)
    assert report.metrics["entropy"] == pytest.approx(
        float(row_by_row(tiny_llama(), batch)[1].detach().mean()), abs=1e-4
    )
    assert "mismatch" not in learner.update(batch).metrics


def test_a_recomputed_proximal_policy_is_that_before_the_first_minibatch() -> None:
    ratios: list[float] = []

    class Seen(PolicyGradient):
        def __call__(self, inputs: LossInputs) -> LossOutput:
            ratios.append(float((inputs.logprobs - inputs.proximal_logprobs).abs().max().detach()))
            return super().__call__(inputs)

    settings = replace(SGD, minibatches=2)
    learner = TorchLearner(tiny_llama(), Seen(proximal="recompute"), settings=settings)
    ratios.clear()
    learner.update(random_batch(10, groups=4))
    first, second = ratios
    assert first < 1e-5 and second > 1e-3


def test_minibatches_are_updates_on_whole_groups_scaled_as_if_alone() -> None:
    batch = random_batch(12, groups=4)
    split = TorchLearner(tiny_llama(), PolicyGradient(), settings=replace(SGD, minibatches=2))
    report = split.update(batch)
    assert split.version == 2 and report.metrics["updates"] == 2
    alone = TorchLearner(tiny_llama(), PolicyGradient(), settings=SGD)
    group = batch.table.group[batch.columns.row]
    losses = []
    for half in (group < 2, group >= 2):
        scale = np.where(half, 1 / half.sum(), 0).astype(np.float32)
        losses.append(alone.update(replace(batch, scale=scale)).metrics["loss"])
    assert report.metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    for name in split.trained:
        # Moments, not weights: Adam turns the rounding of a gradient near 0 into a whole step.
        moments = (learner.optimizer.state[learner.trained[name]]["exp_avg"] for learner in (split, alone))
        torch.testing.assert_close(*moments, atol=1e-5, rtol=1e-3)


def test_a_minibatch_without_signal_makes_no_update() -> None:
    batch = random_batch(13, groups=4)
    quiet = batch.table.group[batch.columns.row] < 2
    batch = replace(batch, advantage=np.where(quiet, 0, batch.advantage).astype(np.float32))
    learner = TorchLearner(tiny_llama(), PolicyGradient(), settings=replace(SGD, minibatches=2))
    report = learner.update(batch)
    assert report.updated and learner.version == 1


def test_the_objective_of_the_losses_package_fits() -> None:
    objective = Objective(token_ratio, lambda log_ratio, inputs: LossOutput(-inputs.advantage * log_ratio.exp()))
    assert TorchLearner(tiny_llama(), objective, settings=SGD).update(random_batch(11)).updated


def test_the_lock_is_held_while_weights_are_written() -> None:
    lock = threading.Lock()
    learner = TorchLearner(tiny_llama(), PolicyGradient(), settings=SGD, lock=lock)
    held: list[bool] = []
    learner.optimizer.register_step_pre_hook(lambda *_: held.append(lock.locked()))
    learner.update(random_batch(0))
    assert held == [True] and not lock.locked()


@pytest.mark.parametrize("tied", [True, False])
def test_merged_lora_equals_peft_and_leaves_the_module_alone(tied: bool) -> None:
    model = tiny_llama(tied=tied)
    settings = replace(SGD, learning_rate=1e-2, lora=LoraSettings(rank=4, alpha=8))
    learner = TorchLearner(model, PolicyGradient(), settings=settings)
    start = {name: tensor.clone() for name, tensor in learner.named_tensors().items()}
    assert same(start, weights_of(tiny_llama(tied=tied)))
    frozen = {n: p.clone() for n, p in learner.model.named_parameters() if not p.requires_grad}
    for seed in range(3):
        assert learner.update(random_batch(seed)).updated
    tensors = {name: tensor.clone() for name, tensor in learner.named_tensors().items()}
    assert same(frozen, dict(learner.model.named_parameters()))
    assert not torch.equal(tensors["model.layers.0.mlp.up_proj.weight"], start["model.layers.0.mlp.up_proj.weight"])
    ids = np.arange(20, dtype=np.int32)
    scored = learner.score(ids)
    merged = learner.model.merge_and_unload()
    assert set(merged.state_dict()) - set(tensors) == ({"lm_head.weight"} if tied else set())
    for name, found in tensors.items():
        torch.testing.assert_close(found, merged.state_dict()[name], atol=1e-6, rtol=1e-5)
    plain = tiny_llama(tied=tied)
    plain.load_state_dict(tensors, strict=not tied)
    probe = TorchLearner(plain, PolicyGradient(), settings=SGD)
    np.testing.assert_allclose(probe.score(ids), scored, atol=1e-5)


def test_a_tied_head_is_named_once() -> None:
    learner = TorchLearner(tiny_llama(), PolicyGradient(), settings=SGD)
    assert "lm_head.weight" not in learner.named_tensors()
    assert "model.embed_tokens.weight" in learner.named_tensors()


def test_bfloat16_lora_keeps_float32_adapters_and_stays_near_float32() -> None:
    settings = replace(SGD, lora=LoraSettings(rank=4))
    low = TorchLearner(tiny_llama(tied=False).bfloat16(), PolicyGradient(), settings=settings)
    assert {p.dtype for p in low.trained.values()} == {torch.float32}
    assert low.update(random_batch(0)).updated
    ids = np.arange(20, dtype=np.int32)
    high = TorchLearner(tiny_llama(tied=False), PolicyGradient(), settings=SGD)
    assert np.abs(low.score(ids) - high.score(ids)).mean() < 0.05
    assert {t.dtype for t in low.named_tensors().values()} == {torch.bfloat16}


def test_bfloat16_compute_over_float32_weights() -> None:
    learner = TorchLearner(tiny_llama(), PolicyGradient(), settings=replace(SGD, compute="bfloat16"))
    assert learner.update(random_batch(0)).updated
    assert {t.dtype for t in learner.named_tensors().values()} == {torch.float32}


def test_gradient_checkpointing_changes_nothing() -> None:
    batch = random_batch(1)
    plain = gradient_of(TorchLearner(tiny_llama(), PolicyGradient(), settings=SGD), batch)
    learner = TorchLearner(tiny_llama(), PolicyGradient(), settings=replace(SGD, gradient_checkpointing=True))
    for name, found in gradient_of(learner, batch).items():
        torch.testing.assert_close(found, plain[name], atol=1e-6, rtol=1e-4)


def test_full_fine_tuning_refuses_bfloat16_weights() -> None:
    with pytest.raises(ConfigError, match="keeps float32"):
        TorchLearner(tiny_llama().bfloat16(), PolicyGradient(), settings=SGD)


def test_a_teacher_that_is_missing_is_refused_with_its_reason() -> None:
    with pytest.raises(ConfigError, match="a teacher and none is given"):
        TorchLearner(tiny_llama(), Objective(token_ratio, reinforce(), needs_teacher=True), settings=SGD)


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
def test_the_reference_stays_where_training_started(lora: LoraSettings | None) -> None:
    batch = random_batch(3)
    start = {name: values.copy() for name, values in scored(tiny_llama(), batch).items()}
    seen: list[Any] = []

    def distance(inputs: LossInputs) -> torch.Tensor:
        assert inputs.reference_logprobs is not None
        seen.append((inputs.reference_logprobs.clone(), (inputs.logprobs - inputs.reference_logprobs).detach()))
        return kl_to_reference(inputs)

    objective = Objective(token_ratio, clipped(), regularisers=(Term(0.5, distance),), needs_reference=True)
    settings = replace(SGD, lora=lora, learning_rate=5e-2, micro_batch_tokens=10_000)
    learner = TorchLearner(tiny_llama(), objective, settings=settings)
    for _ in range(3):
        assert learner.update(batch).updated
    for reference, _ in seen:
        np.testing.assert_allclose(reference.numpy(), start["logprobs"], atol=1e-5)
    assert float(seen[0][1].abs().max()) < 1e-5
    assert float(seen[2][1].abs().max()) > 1e-2


def scored(model: Any, batch: TrainingBatch) -> dict[str, Any]:
    """Log-probability and entropy of each column, row by row."""
    with torch.no_grad():
        logprobs, entropy = row_by_row(model, batch)
    return {"logprobs": logprobs.numpy(), "entropy": entropy.numpy()}


def test_a_survey_sees_the_whole_update_whatever_the_micro_batches() -> None:
    batch = random_batch(5)
    wanted = scored(tiny_llama(), batch)
    for tokens in (1, 10_000):
        seen: list[UpdateColumns] = []

        def weight(update: UpdateColumns, seen: list[UpdateColumns] = seen) -> Any:
            seen.append(update)
            return (update.entropy >= np.median(update.entropy)).astype(np.float32)

        objective = Objective(token_ratio, clipped(), weights=(weight,))
        learner = TorchLearner(tiny_llama(), objective, settings=replace(SGD, micro_batch_tokens=tokens))
        found = gradient_of(learner, batch)
        (update,) = seen
        np.testing.assert_allclose(update.logprobs, wanted["logprobs"], atol=1e-5)
        np.testing.assert_allclose(update.entropy, wanted["entropy"], atol=1e-5)
        np.testing.assert_array_equal(update.columns.row, batch.columns.row)
        keep = (wanted["entropy"] >= np.median(wanted["entropy"])).astype(np.float32)
        plain = TorchLearner(tiny_llama(), Objective(token_ratio, clipped()), settings=SGD)
        for name, gradient in gradient_of(plain, replace(batch, weight=batch.weight * keep)).items():
            torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)


def test_credit_from_a_teacher_needs_no_reward() -> None:
    batch = random_batch(6)
    batch = replace(batch, advantage=np.zeros_like(batch.advantage))
    teacher = tiny_llama(seed=9)

    def distil(update: UpdateColumns) -> Any:
        assert update.teacher_logprobs is not None
        return update.teacher_logprobs - update.logprobs

    objective = Objective(token_ratio, reinforce(), credits=(distil,), needs_teacher=True)
    learner = TorchLearner(tiny_llama(), objective, settings=replace(SGD, learning_rate=3e-3), teacher=teacher)

    before = {name: parameter.clone() for name, parameter in teacher.named_parameters()}
    assert learner.update(batch).updated
    assert all(torch.equal(before[name], parameter) for name, parameter in teacher.named_parameters())
    # What the teacher likes better than the policy becomes likelier: the first-order change has the credit's sign.
    credit = distil_by_hand(batch, teacher)
    moved = scored(learner.model, batch)["logprobs"] - scored(tiny_llama(), batch)["logprobs"]
    assert float((credit * moved).sum()) > 0


def distil_by_hand(batch: TrainingBatch, teacher: Any) -> Any:
    return scored(teacher, batch)["logprobs"] - scored(tiny_llama(), batch)["logprobs"]


def test_a_closed_gate_takes_no_step_and_says_so() -> None:
    objective = Objective(token_ratio, clipped(), gate=lambda update: 0.0)
    learner = TorchLearner(tiny_llama(), objective, settings=SGD)
    before = weights_of(learner.model)
    report = learner.update(random_batch(1))
    assert (report.updated, report.reason) == (False, "the method's gate closed")
    assert same(before, weights_of(learner.model))


def test_a_gate_scales_the_learning_rate() -> None:
    learner = TorchLearner(tiny_llama(), Objective(token_ratio, clipped(), gate=lambda update: 0.25), settings=SGD)
    assert learner.update(random_batch(1)).metrics["learning_rate"] == pytest.approx(0.25 * SGD.learning_rate)


def test_a_statistic_of_the_logits_carries_its_gradient() -> None:
    def spread(logits: torch.Tensor) -> torch.Tensor:
        return logits.float().var(-1)

    def term(inputs: LossInputs) -> torch.Tensor:
        assert inputs.statistic is not None
        return inputs.statistic

    batch = random_batch(2)
    objective = Objective(token_ratio, clipped(), regularisers=(Term(1.0, term),), statistic=spread)
    plain = gradient_of(TorchLearner(tiny_llama(), Objective(token_ratio, clipped()), settings=SGD), batch)
    found = gradient_of(TorchLearner(tiny_llama(), objective, settings=SGD), batch)
    assert max(float((found[name] - plain[name]).abs().max()) for name in plain) > 1e-4


def test_what_an_objective_remembers_is_in_the_checkpoint(tmp_path: Path) -> None:
    @dataclass
    class Counter:
        seen: int = 0

        def observe(self, update: UpdateColumns) -> None:
            self.seen += 1

        def state(self) -> Any:
            return self.seen

        def restore(self, state: Any) -> None:
            self.seen = state

        def __call__(self, inputs: LossInputs) -> torch.Tensor:
            return torch.zeros_like(inputs.logprobs)

    first, second = Counter(), Counter()
    for counter in (first, second):
        objective = Objective(token_ratio, clipped(), regularisers=(Term(1.0, counter),))
        learner = TorchLearner(tiny_llama(), objective, settings=SGD)
        if counter is first:
            learner.update(random_batch(1))
            learner.update(random_batch(2))
            learner.save(tmp_path / "checkpoint")
        else:
            learner.load(tmp_path / "checkpoint")
    assert (first.seen, second.seen) == (2, 2)


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(ConfigError, match=r"learning_rate = 0.*gradient_clip = -1"):
        LearnerSettings(learning_rate=0, gradient_clip=-1)
