"""What is exported is what was trained, played and measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from forests import random_batch, tiny_llama
from peft import PeftModel
from pyarrow import parquet
from shown_runs import MARKUP, write_shown
from test_comparison import saved
from transformers import AutoModelForCausalLM, AutoTokenizer

from agentrl.cli.export import Wanted, export
from agentrl.cli.report import report
from agentrl.environment import adapt
from agentrl.errors import ConfigError, StoreError
from agentrl.evaluation.result import MANIFEST, load_result, write_json
from agentrl.export.sft import example
from agentrl.losses.objective import LossInputs, LossOutput
from agentrl.plugins import load_host
from agentrl.protocols import HasOracle
from agentrl.rollout.demonstrate import play
from agentrl.store.reader import FolderReader
from agentrl.tiny import make_tiny
from agentrl.training.learner import LearnerSettings, LoraSettings, TorchLearner
from agentrl.types import Message, ToolCall, ToolSpec

LORA = LearnerSettings(learning_rate=1e-2, lora=LoraSettings(rank=4))
WORDS = ["key door north east go open take"]


def objective(inputs: LossInputs) -> LossOutput:
    return LossOutput(-inputs.advantage * inputs.logprobs)


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, TorchLearner]:
    """A run's folder with a checkpoint of adapters, on weights that the run made itself."""
    folder = tmp_path / "run"
    write_shown(folder)
    (folder / "warm_start" / "model").rename(tmp_path / "old")
    base = make_tiny(tmp_path / "words", WORDS, hidden=32, layers=1, heads=1)
    model = tiny_llama(tied=False)
    model.save_pretrained(folder / "warm_start" / "model")
    learner = TorchLearner(model, objective, settings=LORA, source=base)
    for seed in range(3):
        learner.update(random_batch(seed))
    learner.save(folder / "checkpoints" / "batch-000002")
    recipe = folder / "config.toml"
    recipe.write_text(recipe.read_text().replace('name = "tiny"', 'name = "tiny"\nlora_rank = 4'))
    return folder, learner


def logprobs(model: Any) -> torch.Tensor:
    ids = torch.arange(2, 26)[None]
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids).logits.log_softmax(-1)
    return found


def test_merged_weights_and_adapter_with_base_give_the_learners_logprobs(
    trained: tuple[Path, TorchLearner], tmp_path: Path
) -> None:
    folder, learner = trained
    expected = logprobs(learner.model)
    assert not torch.allclose(expected, logprobs(AutoModelForCausalLM.from_pretrained(folder / "warm_start" / "model")))
    export(folder, tmp_path / "merged", Wanted(weights="merged"), [])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert torch.allclose(logprobs(merged), expected, atol=1e-5)
    export(folder, tmp_path / "adapter", Wanted(weights="adapter"), [])
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter" / "base")
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert torch.allclose(logprobs(adapted), expected, atol=1e-5)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == "base"
    for out in ("merged", "adapter"):
        assert AutoTokenizer.from_pretrained(tmp_path / out)("go north")["input_ids"]


def test_the_card_tells_what_was_measured_and_what_was_not(trained: tuple[Path, TorchLearner], tmp_path: Path) -> None:
    folder, _ = trained
    export(folder, tmp_path / "out", Wanted(weights="merged"), [])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| before training | 20 held out | temperature 1 | 10.0% [2.8, 30.1] |" in card
    assert "| after 1 updates | 20 held out | temperature 1 | 90.0% [69.9, 97.2] |" in card
    assert "+80.0 points" in card and "16 tasks up, 0 down" in card
    assert "one run with seed 3" in card and "agentrl-keydoor" in card
    assert (folder / "config.toml").read_text().strip() in card


def test_parquet_holds_a_row_an_episode_as_the_ledger_has_it(tmp_path: Path) -> None:
    write_shown(tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out", Wanted(trajectories="parquet"), [])
    rows = parquet.read_table(tmp_path / "out" / "trajectories.parquet").to_pylist()
    with FolderReader(tmp_path / "run") as reader:
        known = {row.id: row for row in reader.rows()}
    assert {row["id"] for row in rows} == known.keys()
    for row in rows:
        assert (row["reward"], row["outcome"], row["batch"]) == (
            known[row["id"]].reward,
            known[row["id"]].outcome,
            known[row["id"]].batch,
        )
    won = next(row for row in rows if row["id"] == "g1-0")
    assert won["step_rewards"] == [0.0, 1.0] and won["success"] is True
    assert [message["role"] for message in won["messages"]] == ["user", "assistant", "tool", "assistant", "tool"]
    call = won["messages"][1]["tool_calls"][0]
    assert json.loads(call["arguments"]) == {"what": MARKUP, "x": 30, "y": 10}


def test_only_successes_become_examples_and_the_tools_stand_beside_them(tmp_path: Path) -> None:
    write_shown(tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out", Wanted(sft="jsonl"), [])
    examples = [json.loads(line) for line in (tmp_path / "out" / "sft.jsonl").read_text().splitlines()]
    assert [found["episode"] for found in examples] == ["g1-0"]
    assert examples[0]["messages"][-1]["role"] == "assistant"
    assert examples[0]["messages"][1]["tool_calls"][0]["function"]["arguments"]["what"] == MARKUP
    assert {tool["function"]["name"] for tool in examples[0]["tools"]} == {"go", "take", "open"}


async def test_an_example_renders_to_the_tokens_that_were_played(tmp_path: Path) -> None:
    host = load_host()
    environment = adapt(host.create("environments", "keydoor", {"size": 4}, where=""))
    task = next(iter(environment.tasks("train")))
    shown = await environment.reset(task)
    words = [m.content for m in shown.messages] + ["key door here north east south west go take open direction"]
    folder = make_tiny(tmp_path / "model", words, hidden=32, layers=1, heads=1)
    renderer = host.factory("renderers", "word")(AutoTokenizer.from_pretrained(folder))
    assert isinstance(environment, HasOracle)
    trajectory = await play(environment, renderer, task, environment.oracle(task), id="oracle")
    assert trajectory.success
    found = json.loads(json.dumps(example(trajectory, environment.tools())))
    *said, last = [read(message) for message in found["messages"]]
    assert last.role == "assistant" and found["tools"] == [tool.as_function() for tool in environment.tools()]
    tools = [ToolSpec(**tool["function"]) for tool in found["tools"]]
    sampled = len(trajectory.steps[-1].tokens)
    played = trajectory.tokens_through(trajectory.steps[-1])
    assert renderer.render(said, tools).tolist() == played[:-sampled].tolist()


def read(message: dict[str, Any]) -> Message:
    calls = [call["function"] for call in message.get("tool_calls", ())]
    return Message(
        message["role"],
        message["content"],
        tuple(ToolCall(call["name"], call["arguments"]) for call in calls),
        name=message.get("name", ""),
    )


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted(), "nothing is asked for"),
        (Wanted(weights="whole"), "merged or adapter"),
        (Wanted(weights="merged"), "no checkpoint"),
        (Wanted(sft="jsonl"), "no success to learn from"),
    ],
)
def test_what_cannot_be_exported_is_said_and_leaves_nothing(tmp_path: Path, wanted: Wanted, said: str) -> None:
    write_shown(tmp_path / "run", wins=())
    with pytest.raises(ConfigError, match=said):
        export(tmp_path / "run", tmp_path / "out", wanted, [])
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    write_shown(tmp_path / "run")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("dear")
    with pytest.raises(StoreError, match="--replace"):
        export(tmp_path / "run", tmp_path / "out", Wanted(sft="jsonl"), [])
    assert (tmp_path / "out" / "mine.txt").read_text() == "dear"
    export(tmp_path / "run", tmp_path / "out", replace(Wanted(sft="jsonl"), replace=True), [])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sft.jsonl"]
    for dear in (tmp_path / "run", tmp_path):
        with pytest.raises(StoreError, match="is not replaced"):
            export(tmp_path / "run", dear, replace(Wanted(sft="jsonl"), replace=True), [])
    assert (tmp_path / "run" / "ledger.sqlite").is_file()


def test_a_report_holds_the_page_and_the_plots_in_both_forms(tmp_path: Path) -> None:
    write_shown(tmp_path / "run")
    report(tmp_path / "run", tmp_path / "out", [], replace=False)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"index.html", "curve.png", "curve.svg", "training.png", "training.svg"}
    assert 'id="book"' in (tmp_path / "out" / "index.html").read_text()
    for name in ("curve", "training"):
        assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (tmp_path / "out" / f"{name}.svg").read_text()
    with pytest.raises(StoreError, match="--replace"):
        report(tmp_path / "run", tmp_path / "out", [], replace=False)
    with pytest.raises(ConfigError, match="neither a run nor an evaluation"):
        report(tmp_path / "out", tmp_path / "other", [], replace=False)


def test_an_evaluation_is_reported_by_its_outcomes(tmp_path: Path) -> None:
    write_shown(tmp_path / "eval")
    (tmp_path / "eval" / "config.toml").unlink()
    result = saved(tmp_path / "eval", 10)
    write_json(result / MANIFEST, load_result(result).manifest)
    report(result, tmp_path / "out", [], replace=False)
    plot = (tmp_path / "out" / "outcomes.svg").read_text()
    assert plot.count("<path") > 4
    assert (tmp_path / "out" / "index.html").is_file()
