"""reasoning-gym's problems: the shipped check passes on several generators, and the score is the generator's."""

from __future__ import annotations

from itertools import islice

import pytest

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")

from agentrl_reasoning_gym.problems import ReasoningGym

from agentrl import Task, say
from agentrl.environment import adapt
from agentrl.testing import assert_environment


@pytest.mark.parametrize("dataset", ["chain_sum", "countdown", "spell_backward"])
def test_generators_pass_the_check(dataset: str) -> None:
    assert_environment(lambda: ReasoningGym(dataset=dataset), tasks=3)


async def score(world: ReasoningGym, task: Task, answer: str) -> float:
    environment = adapt(world)
    await environment.reset(task)
    return (await environment.step(say(answer))).reward


async def test_the_answer_is_the_whole_text_or_what_is_tagged() -> None:
    world = ReasoningGym(options={"min_terms": 2, "max_terms": 2})
    task = next(world.tasks("train"))
    world.reset(task)
    right = str(world._entry["answer"])
    assert await score(world, task, right) == 1.0
    assert await score(world, task, f"I think <answer>0.5</answer>, no: <answer> {right} </answer>") == 1.0
    assert await score(world, task, f"<answer>{right}1</answer> {right}") < 1.0
    assert await score(world, task, "") == 0.0


def test_the_splits_have_problems_of_their_own_and_always_the_same_ones() -> None:
    world, other = ReasoningGym(dataset="countdown"), ReasoningGym(dataset="countdown")
    train = [world.reset(task) for task in islice(world.tasks("train"), 40)]
    test = [world.reset(task) for task in islice(world.tasks("test"), 40)]
    assert not set(train) & set(test) and train == [other.reset(task) for task in islice(other.tasks("train"), 40)]


def test_a_slip_in_a_generators_name_is_answered_with_the_name() -> None:
    with pytest.raises(ValueError, match=r"has no dataset 'countdwn'\. Did you mean 'countdown'\? There are: ab, "):
        ReasoningGym(dataset="countdwn")


@pytest.mark.parametrize("given", [{"options": {"min_terms": -1}}, {"options": {"size_of": 1}}])
def test_what_the_generator_refuses_is_said(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="cannot be made"):
        ReasoningGym(**given)  # type: ignore[arg-type]
