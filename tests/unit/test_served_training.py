"""What was served is trained on: the recorded ids as they are, of the sessions that succeeded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from forests import row_by_row
from served_desk import served

from agentrl.engines.transformers import TransformersEngine
from agentrl.errors import ConfigError
from agentrl.models import load_model, load_tokenizer
from agentrl.plugins import load_host
from agentrl.protocols import Renderer
from agentrl.rollout.tokens import TokenPlayer
from agentrl.runs.warm_start import recorded
from agentrl.tiny import make_tiny
from agentrl.training.learner import LearnerSettings, TorchLearner
from agentrl.training.sft import NegativeLogprob, SftSettings, fine_tune, supervised_batch
from agentrl.types import Trajectory

TEXTS = ["which lamp is red green or blue", "say the next one", "it is the lamp"]


def tiny(folder: Path, texts: list[str]) -> Path:
    return make_tiny(folder, texts, hidden=32, layers=1, heads=1, context=128)


def renderer_of(folder: Path) -> Renderer:
    renderer: Renderer = load_host().factory("renderers", "word")(load_tokenizer(folder))
    return renderer


def logprobs_of(model: torch.nn.Module, trajectories: tuple[Trajectory, ...]) -> torch.Tensor:
    with torch.no_grad():
        return row_by_row(model, supervised_batch(trajectories))[0]


async def test_the_successes_of_a_served_folder_are_imitated_token_for_token(tmp_path: Path) -> None:
    weights = tiny(tmp_path / "model", TEXTS)
    renderer, folder = renderer_of(weights), tmp_path / "served"
    engine = TransformersEngine(load_model(weights))
    await engine.start()
    async with served(folder, TokenPlayer(engine, renderer), engine.health) as client:
        for number in range(6):
            said: list[object] = [{"role": "user", "content": "which lamp is red"}]
            for _ in range(2):
                answer = await client.ask(f"/v1/s/n{number}", *said, max_tokens=4)
                said += [answer["choices"][0]["message"], {"role": "user", "content": "say the next one"}]
            await client.finish(f"n{number}", success=number % 2 == 0)
    await engine.close()
    shown = recorded(folder, 100, renderer)
    assert [trajectory.id for trajectory in shown.trajectories] == ["n0-0", "n2-0", "n4-0"] and shown.success == 1.0
    assert [t.id for t in recorded(folder / "payloads.bin", 2, renderer).trajectories] == ["n0-0", "n2-0"]
    # The ids that are learned are those that were sampled, in the contexts in which they were sampled.
    model = load_model(weights)
    before = logprobs_of(model, shown.trajectories)
    sampled = [value for t in shown.trajectories for step in t.steps for value in step.logprobs.tolist()]
    assert sorted(before.tolist()) == pytest.approx(sorted(sampled), abs=1e-4)
    learner = TorchLearner(model, NegativeLogprob(), settings=LearnerSettings(learning_rate=1e-2), source=weights)
    report = fine_tune(learner, shown.trajectories, SftSettings(epochs=20, batch_trajectories=3))
    after = logprobs_of(model, shown.trajectories)
    assert after.mean() > before.mean() + 1.0 and report.tokens == 20 * len(sampled)
    other = renderer_of(tiny(tmp_path / "other", ["another kind of words altogether", *"abcdefghij"]))
    with pytest.raises(ConfigError, match="recorded with another tokenizer"):
        recorded(folder, 100, other)


def test_a_folder_without_payloads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no payloads"):
        recorded(tmp_path, 1, renderer_of(tiny(tmp_path / "model", TEXTS)))
