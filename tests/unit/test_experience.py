"""Learning without weights: how edits are read and made, what prompts show of them, and what a kill leaves."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from builders import make_groups, make_trajectory
from fakes_rollout import Engine, Renderer, World
from forests import tiny_llama

from agentrl.batch import TrainingBatch
from agentrl.errors import InvalidDataError, StoreError
from agentrl.methods.groups import grpo
from agentrl.protocols import ContextPolicy, GenerateRequest
from agentrl.rollout.advice import AdvisedPlayer
from agentrl.rollout.context import Append, Window
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.limits import EpisodeLimits
from agentrl.rollout.tokens import TokenPlayer
from agentrl.training.experience import Bounds, Edit, ExperienceLearner, edited, read_edits
from agentrl.types import Group, Message, Task

BOUNDS = Bounds(limit=3, longest=20)


def said(*edits: dict[str, object]) -> str:
    return json.dumps({"edits": edits})


def test_edits_add_update_and_delete() -> None:
    assert edited(("a", "b"), Edit("add", " c "), BOUNDS) == ("a", "b", "c")
    assert edited(("a", "b"), Edit("update", "x", 2), BOUNDS) == ("a", "x")
    assert edited(("a", "b"), Edit("delete", number=1), BOUNDS) == ("b",)
    assert edited(("a",), Edit("add", "y" * 50), BOUNDS) == ("a", "y" * 20)


@pytest.mark.parametrize("edit", [Edit("add", "d"), Edit("add", "a"), Edit("add", "  "), Edit("update", " ", 1)])
def test_a_full_list_a_repetition_and_an_empty_text_change_nothing(edit: Edit) -> None:
    assert edited(("a", "b", "c"), edit, BOUNDS) == ("a", "b", "c")


def test_all_numbers_of_a_reply_mean_the_list_that_was_shown() -> None:
    reply = said(
        {"do": "add", "text": "new"},
        {"do": "delete", "number": 1},
        {"do": "update", "number": 2, "text": "B"},
        {"do": "delete", "number": 3},
    )
    experiences: tuple[str, ...] = ("a", "b", "c")
    for edit in read_edits(reply, 3):
        experiences = edited(experiences, edit, BOUNDS)
    assert experiences == ("B", "new")


def test_the_last_object_with_edits_counts_whatever_stands_around_it() -> None:
    reply = f'I think {{"edits": oops. First {said({"do": "add", "text": "x"})}, or rather:\n```{said()}```'
    assert read_edits(reply, 0) == []
    assert [edit.text for edit in read_edits("{ " + said({"do": "add", "text": "{}"}), 0)] == ["{}"]


@pytest.mark.parametrize(
    "reply",
    [
        "no object",
        '{"edit": []}',
        '{"edits": "none"}',
        said({"do": "burn", "number": 1}),
        said({"do": "delete", "number": 3}),
        said({"do": "update", "text": "x"}),
    ],
)
def test_a_reply_that_cannot_be_read_is_no_edit(reply: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        read_edits(reply, 2)


def batch(*returns: Sequence[float]) -> TrainingBatch:
    groups = {
        f"g{place}": [make_trajectory(f"g{place}m{m}", f"g{place}", [value]) for m, value in enumerate(values)]
        for place, values in enumerate(returns)
    }
    return grpo().batch(make_groups(**groups))


class Editor:
    """Replays replies, and keeps what it was asked."""

    def __init__(self, *replies: str | Exception) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[dict[str, object], int]] = []

    def __call__(self, messages: Sequence[Message], number: int) -> str:
        self.asked.append((json.loads(messages[1].content), number))
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


def test_groups_of_different_worth_edit_one_after_the_other() -> None:
    editor = Editor(
        said({"do": "add", "text": "look first"}), said({"do": "update", "number": 1, "text": "look twice"})
    )
    learner = ExperienceLearner(tiny_llama(), Bounds(), editor)
    report = learner.update(batch([0, 1], [1, 1], [0.5, 0]))
    assert report.updated and learner.version == 1
    assert learner.experiences == ("look twice",)
    assert learner.advice() == "Experience from earlier tasks:\n[1] look twice"
    (first, _), (second, _) = editor.asked
    assert (first["experiences"], second["experiences"]) == ([], ["[1] look first"])
    assert [episode["return"] for episode in first["episodes"]] == [1, 0]  # type: ignore[attr-defined, index]
    assert report.metrics["experience_add"] == report.metrics["experience_update"] == 1


def test_an_unreadable_reply_is_asked_for_again_and_then_passed_over() -> None:
    editor = Editor("?", said({"do": "add", "text": "a"}), "?", "?", InvalidDataError("the question is too long"))
    learner = ExperienceLearner(tiny_llama(), Bounds(tries=3), editor)
    report = learner.update(batch([0, 1], [0, 1]))
    assert [number for _, number in editor.asked] == [0, 1, 0, 1, 2]
    assert report.updated and learner.experiences == ("a",)
    assert report.metrics["experience_unreadable"] == 4
    learner.ask = Editor(*[InvalidDataError("the question is too long")] * 3)
    report = learner.update(batch([0, 1]))
    assert (report.updated, report.reason) == (False, "no reply could be used: the question is too long")
    assert learner.version == 1


def test_a_batch_without_signal_asks_nobody() -> None:
    learner = ExperienceLearner(tiny_llama(), Bounds(), Editor())
    report = learner.update(batch([1, 1], [0, 0]))
    assert (report.updated, learner.version) == (False, 0)
    assert "different worth" in report.reason


def test_a_checkpoint_holds_the_list_and_its_version(tmp_path: Path) -> None:
    learner = ExperienceLearner(tiny_llama(), Bounds(), Editor(said({"do": "add", "text": "ä"})))
    learner.update(batch([0, 1]))
    learner.save(tmp_path / "batch")
    learner.save(tmp_path / "batch")
    other = ExperienceLearner(tiny_llama(), Bounds())
    other.load(tmp_path / "batch")
    assert (other.version, other.experiences) == (1, ("ä",))
    with pytest.raises(StoreError, match="holds no experiences"):
        other.load(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["batch"]


def engine_that_reads(advice: str) -> Engine:
    """Answers "a" where its prompt holds `advice`, else a letter by chance."""

    def answer(request: GenerateRequest) -> str:
        if advice in Renderer().decode(request.tokens):
            return "a"
        return random.Random(request.sampling.seed).choice("abc")

    return Engine(answer)


@pytest.mark.parametrize("context", [Append(), Window(1)])
@pytest.mark.parametrize("extends", [True, False])
async def test_every_prompt_shows_the_advice_once_and_the_record_does_not(
    context: ContextPolicy, extends: bool
) -> None:
    engine = engine_that_reads("say a")
    player = AdvisedPlayer(TokenPlayer(engine, Renderer(extends), context), lambda: "say a")
    async with RolloutEngine(World(), player, limits=EpisodeLimits(max_tokens=20)) as rollout:
        trajectory = await rollout.episode(Task("t", "counter", data={"length": 4}), 0)
    assert trajectory.reward == 4
    for step, request in zip(trajectory.steps, engine.requests, strict=True):
        assert Renderer().decode(request.tokens).count("say a") == 1
        assert np.array_equal(trajectory.tokens_through(step)[: -len(step.tokens)], request.tokens)
        assert "say a" not in step.observation.messages[0].content


async def test_no_advice_leaves_every_prompt_as_it_was() -> None:
    async def prompts(advised: bool) -> list[bytes]:
        engine = engine_that_reads("say a")
        player = TokenPlayer(engine, Renderer())
        who = AdvisedPlayer(player, lambda: "") if advised else player
        async with RolloutEngine(World(), who, limits=EpisodeLimits(max_tokens=20)) as rollout:
            await rollout.episode(Task("t", "counter", data={"length": 4}), 0)
        return [request.tokens.tobytes() for request in engine.requests]

    assert await prompts(True) == await prompts(False)


async def test_rollouts_and_edits_in_turn_raise_the_return() -> None:
    """The editor finds out from the records what the better episodes said; the policy does what it reads."""

    def edit(messages: Sequence[Message], number: int) -> str:
        episodes = json.loads(messages[1].content)["episodes"]
        assert episodes[0]["return"] > episodes[-1]["return"]
        best = [step["said"] for step in episodes[0]["steps"]]
        return said({"do": "add", "text": f"say {max(set(best), key=best.count)}"})

    learner = ExperienceLearner(tiny_llama(), Bounds(), edit)
    player = AdvisedPlayer(TokenPlayer(engine_that_reads("say a"), Renderer()), learner.advice)
    means = []
    async with RolloutEngine(World(), player, limits=EpisodeLimits(max_tokens=20)) as rollout:
        for round_ in range(2):
            task = Task(f"t{round_}", "counter", data={"length": 5})
            played = tuple([await rollout.group(task.id).episode(task, member) for member in range(12)])
            means.append(float(np.mean([trajectory.reward for trajectory in played])))
            learner.update(grpo().batch([Group(task.id, task, played)]))
    assert means[0] < 3 and means[1] == 5
    assert learner.experiences == ("say a",)
