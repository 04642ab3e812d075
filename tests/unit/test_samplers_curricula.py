"""Curricula: what a result does to the next draws, and the same draws after a restart."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from builders import make_trajectory
from hypothesis import given
from hypothesis import strategies as st

from agentrl.errors import ConfigError
from agentrl.tasks.curricula import OptimisticSampler, SoftmaxSampler, StagedSampler, category_of, learning_signal
from agentrl.types import Group, Task

Curriculum = SoftmaxSampler | OptimisticSampler | StagedSampler
MAKERS: dict[str, Callable[[], Curriculum]] = {
    "softmax": lambda: SoftmaxSampler(tasks, 3),
    "optimistic": lambda: OptimisticSampler(tasks, 3),
    "staged": lambda: StagedSampler(tasks, 3, window=4),
}


def tasks() -> Iterable[Task]:
    return (Task(f"{name}-{number}", "e") for number in range(4) for name in ("easy", "hard", "vast"))


def result(name: str, *returns: float) -> Group:
    task = Task(f"{name}-0", "e")
    return Group("g", task, tuple(make_trajectory(f"t{i}", "g", [value]) for i, value in enumerate(returns)))


def drawn(sampler: Curriculum, count: int) -> Counter[str]:
    return Counter(category_of(task) for task in sampler.next(count))


def test_a_category_is_the_first_tag_or_the_prefix_of_the_id() -> None:
    assert category_of(Task("easy-3", "e")) == "easy"
    assert category_of(Task("math/7-1", "e")) == "math"
    assert category_of(Task("easy-3", "e", tags=("red", "blue"))) == "red"
    assert category_of(Task("alone", "e")) == "alone"
    assert category_of(Task("easy-3", "e", data={"size": 4}, tags=("red",)), "size") == "4"
    with pytest.raises(ConfigError, match="has no 'level' in its data; there is: size"):
        category_of(Task("easy-3", "e", data={"size": 4}), "level")


def test_the_signal_is_the_mean_size_of_normalised_advantages() -> None:
    assert learning_signal(result("easy", 1, 1, 1)) == 0.0
    assert learning_signal(result("easy", 1)) == 0.0
    assert learning_signal(result("easy", 1, 0, 1, 0)) == pytest.approx(1.0, abs=1e-5)
    # One of four won: |A| is 3 sqrt(1/3) once and sqrt(1/3) thrice.
    assert learning_signal(result("easy", 1, 0, 0, 0)) == pytest.approx(1.5 / math.sqrt(3), abs=1e-5)


def test_the_softmax_bandit_moves_towards_what_teaches() -> None:
    sampler = SoftmaxSampler(tasks, alpha=0.5, temperature=0.25)
    assert sampler.chances() == pytest.approx(dict.fromkeys(("easy", "hard", "vast"), 1 / 3))
    sampler.observe(result("hard", 1, 0))
    sampler.observe(result("easy", 1, 1))
    weight = math.exp(0.5 / 0.25)
    assert sampler.chances()["hard"] == pytest.approx(weight / (weight + 2), abs=1e-5)
    sampler.observe(result("hard", 0, 0))
    weight = math.exp(0.25 / 0.25)
    assert sampler.chances()["hard"] == pytest.approx(weight / (weight + 2), abs=1e-5)
    assert drawn(sampler, 600)["hard"] == pytest.approx(600 * weight / (weight + 2), abs=60)


def test_the_optimistic_bandit_tries_all_and_then_what_teaches() -> None:
    sampler = OptimisticSampler(tasks, exploration=0.2)
    assert set(drawn(sampler, 3)) == {"easy", "hard", "vast"}
    for name, returns in (("easy", (1, 1)), ("hard", (1, 0)), ("vast", (0, 0))):
        sampler.observe(result(name, *returns))
    assert sampler.bound("hard") == pytest.approx(1 + 0.2 * math.sqrt(2 * math.log(4) / 2), abs=1e-5)
    # 1 + .2 sqrt(2 ln(n + 1) / n_k + 1) against .2 sqrt(2 ln(n + 1) / 2): far above for long.
    assert drawn(sampler, 12) == {"hard": 12}
    assert set(drawn(OptimisticSampler(tasks, exploration=2.0), 30)) == {"easy", "hard", "vast"}


def test_a_stage_opens_when_the_one_before_is_mastered_and_stays_open() -> None:
    sampler = StagedSampler(tasks, stages=["hard", "easy", "vast"], share=0.75, window=4)
    assert drawn(sampler, 8) == {"hard": 8}
    sampler.observe(result("hard", 1, 0, 1, 0))
    sampler.observe(result("easy", 1, 1, 1, 1))
    assert sampler.open == ["hard"]
    sampler.observe(result("hard", 1, 1))
    assert sampler.open == ["hard", "easy"]
    sampler.observe(result("hard", 0, 0, 0, 0))
    assert sampler.open == ["hard", "easy"]
    assert set(drawn(sampler, 40)) == {"hard", "easy"}


def test_stages_by_number_open_from_the_smallest() -> None:
    def sized() -> Iterable[Task]:
        return (Task(f"t{number}", "e", data={"size": size}) for number, size in enumerate([10, 2, 9] * 3))

    sampler = StagedSampler(sized, by="size", window=2)
    assert sampler.open == ["2"]
    assert {task.data["size"] for task in sampler.next(6)} == {2}
    for size, open_after in ((2, ["2", "9"]), (9, ["2", "9", "10"])):
        sampler.observe(Group("g", Task("x", "e", data={"size": size}), result("t", 1, 1).trajectories))
        assert sampler.open == open_after


@pytest.mark.parametrize("kind", MAKERS)
@given(
    before=st.lists(
        st.tuples(st.sampled_from(["easy", "hard", "vast"]), st.lists(st.sampled_from([0.0, 1.0]))), max_size=8
    ),
    count=st.integers(0, 9),
)
def test_draws_go_on_after_a_restart_as_if_nothing_had_happened(
    kind: str, before: list[tuple[str, list[float]]], count: int
) -> None:
    sampler, other = MAKERS[kind](), MAKERS[kind]()
    sampler.next(count)
    for name, returns in before:
        sampler.observe(result(name, *returns))
    other.restore(json.loads(json.dumps(sampler.state())))
    assert other.state() == sampler.state()
    late = result("easy", 1.0, 0.0)
    for each in (sampler, other):
        each.observe(late)
    assert [task.id for task in other.next(20)] == [task.id for task in sampler.next(20)]


@pytest.mark.parametrize("kind", MAKERS)
def test_a_category_gives_every_task_once_before_one_again(kind: str) -> None:
    given_ids = [task.id for task in MAKERS[kind]().next(60)]
    for name in ("easy", "hard", "vast"):
        of_name = [task_id for task_id in given_ids if task_id.startswith(name)]
        for epoch in range(len(of_name) // 4):
            assert len(set(of_name[4 * epoch : 4 * epoch + 4])) == 4


@pytest.mark.parametrize("kind", MAKERS)
def test_results_of_unknown_tasks_change_nothing(kind: str) -> None:
    sampler = MAKERS[kind]()
    before = sampler.state()
    sampler.observe(result("gone", 1, 0))
    sampler.observe(Group("g", Task("easy-0", "e"), ()))
    assert sampler.state() == before


def test_bad_options_and_states_are_told() -> None:
    with pytest.raises(ConfigError, match="no tasks"):
        SoftmaxSampler(lambda: ())
    with pytest.raises(ConfigError, match="alpha"):
        SoftmaxSampler(tasks, alpha=0.0)
    with pytest.raises(ConfigError, match="window"):
        OptimisticSampler(tasks, window=0)
    with pytest.raises(ConfigError, match="name each category once"):
        StagedSampler(tasks, stages=["easy"])
    with pytest.raises(ConfigError, match="no state of a curriculum"):
        SoftmaxSampler(tasks).restore({"position": 3})
    with pytest.raises(ConfigError, match="begun with the categories a"):
        SoftmaxSampler(tasks).restore(SoftmaxSampler(lambda: [Task("a-1", "e"), Task("b-1", "e")]).state())
    with pytest.raises(ConfigError, match="all of the first 10,000 tasks are of the category 'a'"):
        SoftmaxSampler(lambda: [Task("a-1", "e"), Task("a-2", "e")])
    with pytest.raises(ConfigError, match="another one"):
        StagedSampler(tasks).restore(SoftmaxSampler(tasks).state())
