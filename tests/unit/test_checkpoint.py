"""Checkpoints: loadable by transformers, exact to continue from, whole or absent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from forests import random_batch, tiny_llama
from transformers import AutoModelForCausalLM

from agentrl.errors import StoreError
from agentrl.losses.objective import LossInputs, LossOutput
from agentrl.training import checkpoint
from agentrl.training.learner import LearnerSettings, LoraSettings, TorchLearner

FULL = LearnerSettings(learning_rate=1e-3, warmup_updates=4, weight_decay=0.01)
LORA = replace(FULL, lora=LoraSettings(rank=4))
PROBE = np.arange(20, dtype=np.int32)


def objective(inputs: LossInputs) -> LossOutput:
    return LossOutput(-inputs.advantage * inputs.logprobs)


def learner(settings: LearnerSettings, source: Path | None = None) -> TorchLearner:
    return TorchLearner(tiny_llama(tied=settings.lora is None), objective, settings=settings, source=source)


@pytest.mark.parametrize("settings", [FULL, LORA], ids=["full", "lora"])
def test_training_continued_after_a_load_equals_uninterrupted_training(
    settings: LearnerSettings, tmp_path: Path
) -> None:
    straight, broken = learner(settings), learner(settings)
    for seed in range(2):
        straight.update(random_batch(seed))
        broken.update(random_batch(seed))
    broken.save(tmp_path / "c")
    resumed = learner(settings)
    resumed.load(tmp_path / "c")
    assert resumed.version == 2
    for seed in range(2, 4):
        first, second = straight.update(random_batch(seed)), resumed.update(random_batch(seed))
        assert first.metrics["loss"] == second.metrics["loss"]
    for name, tensor in straight.named_tensors().items():
        assert torch.equal(tensor, resumed.named_tensors()[name])
    for name, parameter in straight.trained.items():
        moments = straight.optimizer.state[parameter]
        for key, value in resumed.optimizer.state[resumed.trained[name]].items():
            assert torch.equal(value, moments[key])


@pytest.mark.parametrize("settings", [FULL, LORA], ids=["full", "lora"])
def test_the_model_loads_with_from_pretrained(settings: LearnerSettings, tmp_path: Path) -> None:
    one = learner(settings)
    one.update(random_batch(0))
    one.save(tmp_path / "c")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "c" / "model")
    again = TorchLearner(loaded, objective, settings=FULL)
    np.testing.assert_allclose(again.score(PROBE), one.score(PROBE), atol=1e-5)
    config = json.loads((tmp_path / "c" / "model" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "agentrl_tree" not in json.dumps(config)


def test_the_adapter_loads_with_peft(tmp_path: Path) -> None:
    from peft import PeftModel

    one = learner(LORA)
    one.update(random_batch(0))
    one.save(tmp_path / "c")
    again = PeftModel.from_pretrained(tiny_llama(tied=False), tmp_path / "c" / "adapter")
    ids = torch.arange(20)[None]
    torch.testing.assert_close(again(input_ids=ids).logits, one.model(input_ids=ids).logits, atol=1e-5, rtol=1e-5)


def test_the_random_state_is_restored(tmp_path: Path) -> None:
    one = learner(FULL)
    torch.manual_seed(7)
    one.save(tmp_path / "c")
    expected = torch.rand(3)
    one.load(tmp_path / "c")
    assert torch.equal(torch.rand(3), expected)


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    one = learner(FULL)
    one.save(tmp_path / "c")
    one.update(random_batch(0))
    one.save(tmp_path / "c")
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    fresh = learner(FULL)
    fresh.load(tmp_path / "c")
    assert fresh.version == 1


def test_tokenizer_files_travel_with_the_model(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "tokenizer.json").write_text("{}")
    (source / "notes.txt").write_text("not this one")
    learner(FULL, source).save(tmp_path / "c")
    names = {p.name for p in (tmp_path / "c" / "model").iterdir()}
    assert "tokenizer.json" in names and "notes.txt" not in names


def test_nothing_in_a_checkpoint_is_pickled(tmp_path: Path) -> None:
    learner(LORA).save(tmp_path / "c")
    suffixes = {p.suffix for p in (tmp_path / "c").rglob("*") if p.is_file()}
    assert suffixes == {".json", ".safetensors"}


def test_a_torn_checkpoint_is_refused(tmp_path: Path) -> None:
    one = learner(FULL)
    one.save(tmp_path / "c")
    (tmp_path / "c" / checkpoint.TENSORS).write_bytes(b"torn")
    with pytest.raises(StoreError, match="not a whole checkpoint"):
        one.load(tmp_path / "c")


def test_a_checkpoint_of_other_adapters_is_refused(tmp_path: Path) -> None:
    learner(FULL).save(tmp_path / "c")
    with pytest.raises(StoreError):
        learner(LORA).load(tmp_path / "c")
    learner(LORA).save(tmp_path / "d")
    with pytest.raises(StoreError, match="weights of another model"):
        learner(replace(LORA, lora=LoraSettings(rank=8))).load(tmp_path / "d")


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="could not be written"):
        learner(FULL).save(tmp_path / "file" / "c")
