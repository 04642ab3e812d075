"""The critic: where values are read, what it learns, and what a run needs of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from forests import random_batch, tiny_llama

from agentrl.errors import StoreError
from agentrl.training.critic import TorchCritic
from agentrl.training.settings import CriticSettings

FAST = CriticSettings(learning_rate=1e-2)


def test_a_value_is_that_of_the_prompt_read_alone() -> None:
    batch = random_batch(1)
    critic = TorchCritic(tiny_llama(), FAST, micro_batch_tokens=50)
    torch.nn.init.normal_(critic.head.weight)
    found = critic.values(batch)
    body = tiny_llama().base_model
    checked = 0
    for context in batch.contexts:
        for row in np.unique(batch.columns.row[context.column[context.column >= 0]]):
            columns = np.flatnonzero(np.isin(context.column, np.flatnonzero(batch.columns.row == row)))
            prompt = torch.from_numpy(context.tokens[: columns[0]].astype(np.int64))[None]
            with torch.no_grad():
                alone = float(critic.head(body(prompt).last_hidden_state[0, -1]))
            assert found[row] == pytest.approx(alone, abs=1e-5)
            checked += 1
    assert checked == int((batch.table.length > 0).sum())
    assert (found[batch.table.length == 0] == 0).all()


def test_it_learns_its_targets_whatever_the_micro_batches() -> None:
    batch = random_batch(2)
    targets = np.random.default_rng(0).normal(size=len(batch.table))
    one, other = (TorchCritic(tiny_llama(), FAST, micro_batch_tokens=size) for size in (1, 10_000))
    first = one.fit(batch, targets)
    assert other.fit(batch, targets)["critic_loss"] == pytest.approx(first["critic_loss"], rel=1e-5)
    np.testing.assert_allclose(one.values(batch), other.values(batch), atol=1e-3)
    for _ in range(30):
        last = one.fit(batch, targets)
    assert last["critic_loss"] < 0.5 * first["critic_loss"]


def test_a_saved_critic_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    batch, targets = random_batch(3), np.ones(len(random_batch(3).table))
    one = TorchCritic(tiny_llama(), FAST)
    one.fit(batch, targets)
    one.save(tmp_path)
    other = TorchCritic(tiny_llama(seed=7), FAST)
    other.load(tmp_path)
    one.fit(batch, targets)
    other.fit(batch, targets)
    np.testing.assert_array_equal(one.values(batch), other.values(batch))
    with pytest.raises(StoreError, match="no critic that fits"):
        other.load(tmp_path / "nowhere")


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="gamma and trace"):
        replace(FAST, gamma=1.5)
