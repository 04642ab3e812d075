"""Tasksets of verifiers in their own virtual environment: the check passes, rewards are theirs, the rest is refused."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from agentrl_verifiers.plugin import agentrl_environments

from agentrl import EnvironmentFault, say
from agentrl.errors import ConfigError
from agentrl.remote.pool import WORKERS
from agentrl.testing import assert_environment

OWN = agentrl_environments()["verifiers"]
pytestmark = pytest.mark.skipif(not OWN.ready, reason="verifiers is not installed (agentrl env install verifiers)")
HERE = str(Path(__file__).parent)


def make(taskset: str = "sums_taskset", **options: Any) -> Any:
    return OWN.factory("verifiers")(taskset=taskset, path=HERE, **options)


@pytest.fixture(autouse=True, scope="module")
def _no_workers_stay() -> Iterator[None]:
    yield
    WORKERS.close()


def test_a_taskset_passes_the_check() -> None:
    assert_environment(partial(make, wins_at=1.25), tasks=2)


async def test_the_reward_is_the_weighted_sum_of_theirs() -> None:
    world = make(wins_at=1.25)
    task = next(iter(world.tasks("train")))
    shown = await world.reset(task)
    assert [(message.role, message.content) for message in shown.messages] == [
        ("system", "You add numbers."),
        ("user", "What is 1 + 3? Answer with the number."),
    ]
    right = await world.step(say(" 4 "))
    assert right.terminated and right.reward == 1.25
    assert right.scores == {"exact": 1.0, "brief": 1.0, "length": 1.0, "success": 1.0}
    await world.reset(task)
    wrong = await world.step(say("I think that it is 4."))
    assert wrong.reward == 0.0 and wrong.scores["success"] == 0.0 and wrong.scores["length"] == 21.0
    await world.close()


def test_every_fifth_task_is_held_out_or_what_another_config_names() -> None:
    world = make()
    train, test = list(world.tasks("train")), list(world.tasks("test"))
    assert [task.seed for task in test] == [4, 9] and len(train) == 8
    named = make(test_config={"first": 100, "count": 3})
    assert [task.seed for task in named.tasks("test")] == [0, 1, 2] and len(list(named.tasks("train"))) == 10
    keys = {task.data["key"] for task in [*named.tasks("train"), *named.tasks("test")]}
    assert len(keys) == 13


async def test_what_needs_more_than_an_answer_is_refused_with_the_reason() -> None:
    world = make("boxed_taskset")
    with pytest.raises(EnvironmentFault, match="its rewards left_behind look into a runtime"):
        await world.reset(next(iter(world.tasks("train"))))
    await world.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"taskset": "no_such_taskset"}, "'no_such_taskset', which cannot be loaded"),
        ({"config": {"many": 3}}, "cannot be loaded"),
    ],
)
def test_what_cannot_be_loaded_is_said(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(**options)
