"""Evaluations count what was played, keep faults apart, and survive on the disk whole or not at all."""

from dataclasses import replace

import pytest
from builders import make_step

from agentrl.errors import StoreError
from agentrl.evaluation.harness import Evaluation, evaluate
from agentrl.outcomes import count_calls
from agentrl.types import Action, Status, Task, ToolCall, Trajectory

TASKS = [Task(f"t{i}", "desk", split="test") for i in range(3)]


class Played:
    """Task 0 is won, task 1 is lost with a malformed call, task 2 ends in a fault."""

    def __init__(self):
        self.asked = []

    async def episode(self, task, member):
        self.asked.append((task.id, member))
        name = f"{task.id}-{member}"
        called = replace(make_step(name, 0), action=Action(tool_calls=(ToolCall("look", {}),)))
        if task.id == "t2":
            return Trajectory(name, task, "g", (called,), Status.ENVIRONMENT_ERROR, error="it raised")
        wrong = replace(make_step(name, 1), action=Action(error="no such tool"), error="no such tool")
        won = task.id == "t0"
        last = replace(make_step(name, 2, reward=2.0 * won, last=True), scores={"success": float(won)})
        steps = (called, last) if won else (called, wrong, last)
        return Trajectory(name, task, "g", steps, Status.OK)


async def measured(attempts=2):
    return await evaluate(Played(), TASKS, attempts=attempts, temperature=0.5, update=7)


async def test_every_task_is_played_so_often_and_faults_are_not_scored():
    rollout = Played()
    found = await evaluate(rollout, TASKS, attempts=2, temperature=0.5, update=7)
    assert sorted(rollout.asked) == [(f"t{i}", n) for i in range(3) for n in range(2)]
    assert (found.environment, found.temperature, found.update) == ("desk", 0.5, 7)
    assert found.successes() == {"t0": [1.0, 1.0], "t1": [0.0, 0.0]}
    assert found.faults() == 2
    assert found.success().value == 0.5
    assert found.mean_reward() == 1.0
    assert found.mean_steps() == 2.5
    assert found.attempts[-1].error == "it raised" and not found.attempts[-1].scored
    assert found.attempts[0].tokens == 4


async def test_calls_are_counted_with_the_mistakes_among_them():
    found = await measured()
    # Each of six episodes calls once, and the two lost ones make one mistake more.
    assert found.call_validity() == pytest.approx(1 - 2 / 8)
    text = replace(make_step("t", 0), action=Action("hello"))
    assert count_calls(Trajectory("t", TASKS[0], "g", (text,), Status.OK)) == (0, 0)
    spoken = replace(found, attempts=tuple(replace(a, calls=0, wrong_calls=0) for a in found.attempts))
    assert spoken.call_validity() is None


async def test_an_evaluation_answers_for_its_tasks_and_attempts_only():
    found = await measured()
    assert found.answers(TASKS, 2)
    assert not found.answers(TASKS, 1) and not found.answers(TASKS, 3)
    assert not found.answers(TASKS[:2], 2) and not found.answers([*TASKS, Task("t9", "desk")], 2)


async def test_it_comes_back_equal_and_leaves_nothing_beside(tmp_path):
    found, path = await measured(), tmp_path / "evaluations" / "one.json"
    found.save(path)
    assert Evaluation.load(path) == found
    assert [p.name for p in path.parent.iterdir()] == ["one.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"attempts": [{"task": "t0"}]}', '{"environment": "desk"}', "3"])
def test_a_torn_file_says_so_and_what_to_do(tmp_path, text):
    path = tmp_path / "one.json"
    path.write_text(text)
    with pytest.raises(StoreError, match=r"is not an evaluation: .* Delete it to evaluate anew"):
        Evaluation.load(path)


async def test_a_place_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be saved"):
        (await measured()).save(tmp_path / "file" / "one.json")


async def test_nothing_but_faults_has_no_success_to_tell():
    found = replace(await measured(), attempts=())
    assert (found.mean_reward(), found.mean_steps(), found.faults()) == (0.0, 0.0, 0)
