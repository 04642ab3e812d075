"""Supervised fine-tuning: the loss is the token mean, it falls, and its order is seeded."""

from __future__ import annotations

import pytest
import torch
from builders import make_trajectory
from forests import random_groups, row_by_row, tiny_llama

from agentrl.errors import ConfigError, TrainingError
from agentrl.training.learner import LearnerSettings, TorchLearner
from agentrl.training.sft import NegativeLogprob, SftSettings, fine_tune, supervised_batch
from agentrl.types import Trajectory

DEMONSTRATIONS: list[Trajectory] = [t for seed in range(2) for g in random_groups(seed) for t in g.trajectories]


def learner() -> TorchLearner:
    return TorchLearner(tiny_llama(), NegativeLogprob(), settings=LearnerSettings(learning_rate=3e-3))


def test_the_first_loss_is_the_mean_negative_logprob_of_sampled_tokens() -> None:
    report = fine_tune(learner(), DEMONSTRATIONS, SftSettings(batch_trajectories=1000))
    logprobs = row_by_row(tiny_llama(), supervised_batch(DEMONSTRATIONS))[0].detach()
    assert report.losses == pytest.approx((-float(logprobs.mean()),), abs=1e-5)
    assert report.tokens == len(logprobs)


def test_it_learns_its_demonstrations() -> None:
    seen: list[tuple[int, int]] = []
    report = fine_tune(
        learner(),
        DEMONSTRATIONS,
        SftSettings(epochs=6, batch_trajectories=8),
        lambda update, updates, _: seen.append((update, updates)),
    )
    assert len(report.losses) == 6 * 3 and seen[-1] == (18, 18)
    assert report.losses[-1] < 0.7 * report.losses[0]


def test_the_order_is_seeded() -> None:
    one, two, other = learner(), learner(), learner()
    for subject, seed in ((one, 1), (two, 1), (other, 2)):
        fine_tune(subject, DEMONSTRATIONS, SftSettings(seed=seed, batch_trajectories=5))
    for name in one.trained:
        assert torch.equal(one.trained[name], two.trained[name])
    assert any(not torch.equal(one.trained[name], other.trained[name]) for name in one.trained)


def test_demonstrations_without_a_token_are_refused() -> None:
    with pytest.raises(TrainingError, match="none of 1 trajectories"):
        fine_tune(learner(), [make_trajectory("t", "g", [0.0], lengths=[0])], SftSettings())


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="epochs is 0"):
        SftSettings(epochs=0)
