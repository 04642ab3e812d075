"""Reward models that learn: a process reward model and progress attribution on a tiny causal model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from forests import VOCABULARY, random_groups, tiny_llama
from transformers import LlamaConfig, LlamaForTokenClassification

from agentrl.errors import ConfigError, InfrastructureFault, StoreError, TrainingError
from agentrl.rewards.calibration import calibration_error
from agentrl.rewards.contexts import readings
from agentrl.rewards.prm import ProcessReward
from agentrl.rewards.progress import ProgressReward
from agentrl.rewards.step_model import Fitting
from agentrl.types import Group, Trajectory

LEARN = Fitting(epochs=60, batch=8, learning_rate=0.005)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    tiny_llama(0).save_pretrained(folder)
    return folder


def rewarded(seed: int = 3) -> list[Group]:
    """Forests in which every second trajectory ends with 1, the others with 0."""
    found = []
    for group in random_groups(seed, groups=2, members=4):
        members = []
        for place, trajectory in enumerate(group.trajectories):
            last = replace(trajectory.steps[-1], reward=float(place % 2))
            members.append(replace(trajectory, steps=(*trajectory.steps[:-1], last)))
        found.append(replace(group, trajectories=(members[0], *members[2:])))
    return found


def trajectories(groups: Sequence[Group]) -> list[Trajectory]:
    return [trajectory for group in groups for trajectory in group.trajectories]


async def test_progress_says_nothing_until_it_learned_and_then_sums_to_the_return(policy: Path) -> None:
    groups = rewarded()
    model = ProgressReward(policy, fit=LEARN)
    for trajectory in trajectories(groups):
        assert list(await model.score(trajectory)) == [0.0] * len(trajectory.steps)
    report = model.fit(groups)
    assert report["loss_before"] == pytest.approx(np.mean([t.reward**2 for t in trajectories(groups)]))
    assert report["loss"] < 0.01 * report["loss_before"]
    # Foretold was 0 for everyone: the error is the mean return.
    assert report["calibration_error"] == pytest.approx(np.mean([t.reward for t in trajectories(groups)]))
    assert model.fit(groups)["calibration_error"] < 0.1
    for trajectory in trajectories(groups):
        assert sum(await model.score(trajectory)) == pytest.approx(trajectory.reward, abs=0.15)
    await model.close()


async def test_progress_learns_the_environments_return_and_not_what_models_added(policy: Path) -> None:
    def paid(trajectory: Trajectory) -> Trajectory:
        steps = [replace(s, reward=s.reward + 7, scores={"environment": s.reward}) for s in trajectory.steps]
        return replace(trajectory, steps=tuple(steps))

    plain, shaped = ProgressReward(policy, fit=Fitting()), ProgressReward(policy, fit=Fitting())
    groups = rewarded()
    added = [replace(group, trajectories=tuple(paid(t) for t in group.trajectories)) for group in groups]
    assert plain.fit(groups) == shaped.fit(added)
    torch.testing.assert_close(plain.model.head.weight, shaped.model.head.weight, rtol=0, atol=0)
    await plain.close()
    await shaped.close()


@pytest.mark.parametrize("loss", ["bce", "mse"])
async def test_a_process_reward_tells_wins_from_losses_once_it_learned(policy: Path, loss: str) -> None:
    groups = rewarded()
    model = ProcessReward(policy, fit=LEARN, loss=loss)  # type: ignore[arg-type]
    nothing_known = 0.5 if loss == "bce" else 0.0
    assert set(await model.score(trajectories(groups)[0])) == {nothing_known}
    report = model.fit(groups)
    assert report["loss"] < 0.3 * report["loss_before"]
    for trajectory in trajectories(groups):
        assert ((await model.score(trajectory))[-1] > 0.5) is trajectory.success
    await model.close()


async def test_gains_sum_to_the_last_value(policy: Path) -> None:
    groups = rewarded()
    values, gains = (ProcessReward(policy, fit=Fitting(), reward=reward) for reward in ("value", "gain"))
    for model in (values, gains):
        model.fit(groups)
    for trajectory in trajectories(groups):
        assert sum(await gains.score(trajectory)) == pytest.approx((await values.score(trajectory))[-1])
    await values.close()
    await gains.close()


def test_a_step_is_read_at_its_last_token_in_its_own_context(policy: Path) -> None:
    model = ProgressReward(policy, fit=Fitting()).model
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    found = trajectories(random_groups(5))
    together = model.read(found)
    for trajectory, outputs in zip(found, together, strict=True):
        for step, output in zip(trajectory.steps, outputs, strict=True):
            ids = torch.from_numpy(trajectory.tokens_through(step).astype(np.int64))
            with torch.no_grad():
                alone = model.head(model.trunk(input_ids=ids[None]).last_hidden_state[0, -1])
            torch.testing.assert_close(output, alone, rtol=1e-4, atol=1e-4)
        assert sorted(np.concatenate([row.steps for row in readings(trajectory)])) == list(range(len(trajectory.steps)))


def test_the_gradient_does_not_depend_on_the_passes(policy: Path) -> None:
    one, many = (ProgressReward(policy, fit=Fitting(train="all", learning_rate=1e-3)) for _ in range(2))
    many.model.most_tokens = 1
    groups = rewarded()
    assert one.fit(groups)["loss"] == pytest.approx(many.fit(groups)["loss"], rel=1e-5)
    for a, b in zip(one.model.trunk.parameters(), many.model.trunk.parameters(), strict=True):
        # Adam divides by the gradient's size, so that rounding shows where it is nearly 0.
        torch.testing.assert_close(a, b, rtol=0, atol=2e-4)


@pytest.mark.parametrize("train", ["head", "all"])
async def test_what_was_saved_goes_on_bit_for_bit_and_scores_frozen(policy: Path, tmp_path: Path, train: str) -> None:
    groups, fitting = rewarded(), Fitting(train=train, learning_rate=0.01)  # type: ignore[arg-type]
    first = ProgressReward(policy, fit=fitting)
    first.fit(groups)
    first.save(tmp_path)
    resumed, frozen = ProgressReward(policy, fit=fitting, start=tmp_path), ProgressReward(policy, start=tmp_path)
    trajectory = trajectories(groups)[0]
    scores = list(await first.score(trajectory))
    assert any(scores)
    assert list(await resumed.score(trajectory)) == list(await frozen.score(trajectory)) == scores
    assert first.fit(groups) == resumed.fit(groups)
    assert list(await first.score(trajectory)) == list(await resumed.score(trajectory)) != scores
    assert frozen.fit(groups) == {}, "frozen"
    for model in (first, resumed, frozen):
        await model.close()


def test_a_saved_model_that_does_not_fit_is_refused(policy: Path, tmp_path: Path) -> None:
    ProgressReward(policy, fit=Fitting()).save(tmp_path / "saved")
    tiny_llama(1).save_pretrained(tmp_path / "other")
    with pytest.raises(StoreError, match="a head over other weights"):
        ProgressReward(tmp_path / "other", start=tmp_path / "saved")
    with pytest.raises(StoreError, match="holds 1 trained tensors"):
        ProgressReward(policy, fit=Fitting(train="all"), start=tmp_path / "saved")
    with pytest.raises(StoreError, match="is not a saved reward model"):
        ProgressReward(policy, start=tmp_path)
    state = tmp_path / "saved" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-8])
    with pytest.raises(StoreError, match="is not a saved reward model"):
        ProgressReward(policy, start=tmp_path / "saved")


def test_a_model_without_a_head_is_no_frozen_process_reward(policy: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="without a head for steps"):
        ProcessReward(policy)
    with pytest.raises(ConfigError, match="is no model folder"):
        ProcessReward(tmp_path)


async def test_the_head_of_a_classification_model_is_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=2,
        initializer_range=0.5,
    )
    whole = LlamaForTokenClassification(config).eval()
    whole.save_pretrained(tmp_path)
    model = ProcessReward(tmp_path)
    trajectory = trajectories(rewarded())[0]
    with torch.no_grad():
        for step, score in zip(trajectory.steps, await model.score(trajectory), strict=True):
            ids = torch.from_numpy(trajectory.tokens_through(step).astype(np.int64))[None]
            good = torch.softmax(whole(input_ids=ids).logits[0, -1], -1)[1]
            assert score == pytest.approx(float(good), abs=1e-5)
    await model.close()


async def test_a_model_that_cannot_read_is_a_fault_and_never_a_zero(policy: Path) -> None:
    model = ProgressReward(policy, fit=Fitting())
    good = trajectories(rewarded())[0]
    odd = replace(good.steps[0], tokens=np.full_like(good.steps[0].tokens, VOCABULARY + 3))
    with pytest.raises(InfrastructureFault, match="the policy sampled token 64"):
        await model.score(replace(good, steps=(odd, *good.steps[1:])))
    long = replace(good.steps[0], prompt=np.ones(600, np.int32))
    with pytest.raises(InfrastructureFault, match="does not fit the reward model's context of 512"):
        await model.score(replace(good, steps=(long, *good.steps[1:])))
    assert list(await model.score(good)) == [0.0] * len(good.steps), "and it goes on"
    await model.close()


def test_a_fit_that_leaves_the_numbers_stops_before_the_weights_are_lost(policy: Path) -> None:
    groups = rewarded()
    model = ProgressReward(policy, fit=Fitting())
    lost = replace(groups[0].trajectories[0].steps[-1], reward=1e30)
    broken = replace(groups[0].trajectories[0], steps=(*groups[0].trajectories[0].steps[:-1], lost))
    before = model.model.head.weight.clone()
    with pytest.raises(TrainingError, match=r"loss is inf .*fit number 1.*Lower the learning_rate"):
        model.fit([replace(groups[0], trajectories=(broken,))])
    assert torch.equal(before, model.model.head.weight)


def test_calibration_is_the_gap_between_what_was_told_and_what_came() -> None:
    sure = np.repeat([0.1, 0.9], 50)
    right = np.concatenate([np.arange(50) < 5, np.arange(50) < 45])
    assert calibration_error(sure, right) == pytest.approx(0.0, abs=1e-12)
    assert calibration_error(1 - sure, right) == pytest.approx(0.8)
    # Equal forecasts stand together whatever their order: the mean is right, so nothing is wrong.
    assert calibration_error(np.full(100, 0.5), np.arange(100) % 2) == pytest.approx(0.0)
    assert calibration_error([2.0], [5.0]) == 3.0
    assert np.isnan(calibration_error([], []))
