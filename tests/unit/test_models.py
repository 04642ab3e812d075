"""Tiny models, where models are looked for, and what a failed fetch says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from agentrl import models
from agentrl.errors import ConfigError, StoreError, UnknownNameError
from agentrl.models import load_model, load_tokenizer, make_tiny, resolve
from agentrl.rendering import make_renderer, self_test
from agentrl.types import ToolSpec

TEXTS = ["You see a door.", "go north south"]
GO = ToolSpec("go", "", {"type": "object", "properties": {"where": {"type": "string", "enum": ["north", "south"]}}})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny", TEXTS, hidden=64, layers=1, heads=2, context=128)


def test_a_tiny_model_loads_as_an_ordinary_one(tiny: Path) -> None:
    model, tokenizer = load_model(tiny), load_tokenizer(tiny)
    assert resolve(tiny) == tiny
    assert model.config.head_dim == 32
    assert model.config.vocab_size == len(tokenizer)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tokenizer.convert_ids_to_tokens([tokenizer.eos_token_id, tokenizer.pad_token_id]) == ["<end>", "<pad>"]
    assert tokenizer.tokenize("You see a door.") == ["You", "see", "a", "door", "."]
    assert model.config.eos_token_id == tokenizer.eos_token_id


def test_a_tiny_models_tokenizer_has_its_renderer(tiny: Path) -> None:
    renderer = make_renderer(load_tokenizer(tiny))
    assert renderer.name == "word"
    assert self_test(renderer, [GO]).forks == 0


def test_a_folder_that_is_not_there_is_no_name_on_a_hub_where_its_parent_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "desk").mkdir(parents=True)
    with pytest.raises(
        UnknownNameError, match=r"there is a folder 'runs' and no 'dsk' in it\. Did you mean 'runs/desk'"
    ):
        resolve("runs/dsk")


def test_equal_seeds_give_equal_weights(tiny: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    same = make_tiny(tmp_path / "same", reversed(TEXTS), hidden=64, layers=1, heads=2, context=128)
    other = make_tiny(tmp_path / "other", TEXTS, hidden=64, layers=1, heads=2, context=128, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    first, second, third = ((folder / "model.safetensors").read_bytes() for folder in (tiny, same, other))
    assert first == second != third
    assert (tiny / "tokenizer.json").read_bytes() == (same / "tokenizer.json").read_bytes()


def test_a_model_loads_in_the_dtype_that_was_asked_for(tiny: Path) -> None:
    assert load_model(tiny, dtype="bfloat16").dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="no dtype 'float33'"):
        load_model(tiny, dtype="float33")


def test_a_shape_that_no_engine_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="heads of 16; vLLM on CPU runs heads of 32 or 64"):
        make_tiny(tmp_path / "m", TEXTS, hidden=64, heads=4)


def test_a_folder_that_holds_something_is_left_alone(tiny: Path) -> None:
    before = np.frombuffer((tiny / "model.safetensors").read_bytes(), np.uint8).sum()
    with pytest.raises(StoreError, match="is not empty"):
        make_tiny(tiny, TEXTS)
    assert np.frombuffer((tiny / "model.safetensors").read_bytes(), np.uint8).sum() == before


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    assert make_tiny(tmp_path, TEXTS, hidden=64, layers=1, heads=2) == tmp_path
    assert sorted(path.name for path in tmp_path.parent.glob(f".{tmp_path.name}*")) == []


def test_a_model_that_is_not_here_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTRL_MODELS", str(tmp_path))
    with pytest.raises(ConfigError, match="agentrl models get smollm2-135m"):
        resolve("smollm2-135m")
    with pytest.raises(UnknownNameError, match="Did you mean 'smollm2-135m'"):
        resolve("smollm-135m")
    with pytest.raises(UnknownNameError, match="no model is called"):
        models.get("llama")
    with pytest.raises(ConfigError, match=r"no config\.json"):
        resolve(tmp_path)


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AGENTRL_MODELS", str(tmp_path / "file" / "models"))
    with pytest.raises(StoreError, match="AGENTRL_MODELS names another"):
        models.get("smollm2-135m")
