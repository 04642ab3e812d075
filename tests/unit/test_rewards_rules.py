"""Rewards by rule, each against values worked out by hand, and step values where trajectories branch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from builders import make_groups, make_trajectory
from forests import random_groups

from agentrl.rewards.branches import BranchValue, step_gains
from agentrl.rewards.rules import Environment, Executable, Malformed, Overlong, StepCost, ToolUse
from agentrl.types import Action, Status, ToolCall, Trajectory


def changed(trajectory: Trajectory, *changes: dict[str, object]) -> Trajectory:
    steps = [replace(step, **change) for step, change in zip(trajectory.steps, changes, strict=True)]  # type: ignore[arg-type]
    return replace(trajectory, steps=tuple(steps))


def played() -> Trajectory:
    """Three steps: unreadable, refused, fine; a model has added 5 to the last."""
    return changed(
        make_trajectory("t", "g", [0.0, 0.25, 6.0]),
        {"action": Action("<call", error="no JSON")},
        {"error": "no such tool"},
        {"scores": {"environment": 1.0, "kind": 5.0}},
    )


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (Environment(), [0.0, 0.25, 1.0]),
        (Executable(), [0.0, 0.0, 1.0]),
        (Malformed(), [-1.0, -1.0, 0.0]),
        (StepCost(), [-1.0, -1.0, -1.0]),
    ],
)
async def test_a_rule_scores_each_step_in_natural_units(rule: StepCost, wanted: list[float]) -> None:
    assert list(await rule.score(played())) == wanted
    assert list(await rule.score(replace(played(), steps=()))) == []


@pytest.mark.parametrize(
    ("lengths", "per", "wanted"),
    [
        ([4, 2], "episode", [0.0, 0.0]),
        ([4, 4], "episode", [0.0, -0.5]),
        ([6, 4], "episode", [0.0, -1.0]),
        ([60, 40], "episode", [0.0, -1.0]),
        ([7, 6], "step", [-0.25, 0.0]),
        ([10, 11], "step", [-1.0, -1.0]),
    ],
)
async def test_overlong_answers_cost_linearly_more_up_to_the_limit(
    lengths: Sequence[int], per: str, wanted: list[float]
) -> None:
    rule = Overlong(limit=10, buffer=4, per=per)  # type: ignore[arg-type]
    assert list(await rule.score(make_trajectory("t", "g", [0.0, 1.0], lengths=lengths))) == wanted


def called(*names: str, error: str = "") -> dict[str, object]:
    return {"action": Action("", tuple(ToolCall(name, {}) for name in names)), "error": error}


@pytest.mark.parametrize(
    ("first", "reward", "status", "wanted"),
    [
        (called("look"), 1.0, Status.OK, 1.0),
        (called("book"), 1.0, Status.OK, 0.0),
        (called("look", error="wrong argument"), 1.0, Status.OK, 0.0),
        (called("look"), 0.0, Status.OK, 0.0),
        (called("look"), 1.0, Status.ENVIRONMENT_ERROR, 0.0),
    ],
)
async def test_tool_use_pays_a_success_in_which_every_tool_was_used(
    first: dict[str, object], reward: float, status: Status, wanted: float
) -> None:
    trajectory = changed(make_trajectory("t", "g", [0.0, reward]), first, called("book", "answer"))
    assert list(await ToolUse(("look", "book")).score(replace(trajectory, status=status))) == [0.0, wanted]


def test_rules_refuse_what_they_cannot_mean() -> None:
    with pytest.raises(ValueError, match=r"buffer is 5; it is above 0 and at most limit, 4 tokens"):
        Overlong(limit=4, buffer=5)
    with pytest.raises(ValueError, match="name the tools"):
        ToolUse(())


def test_what_a_model_added_makes_no_success() -> None:
    failed = changed(make_trajectory("t", "g", [0.5]), {"scores": {"environment": 0.0, "kind": 0.5}})
    won = changed(make_trajectory("t", "g", [-0.5]), {"scores": {"environment": 1.0, "kind": -1.5}})
    assert (failed.success, won.success) == (False, True)
    assert make_trajectory("t", "g", [0.5]).success


async def test_a_branch_is_paid_for_the_value_that_it_added() -> None:
    """One trunk step, then a win and a loss from it; a third trajectory of its own loses: V(root) = 1/3."""
    win, lose, alone = (make_trajectory(name, "g", [0.0, r]) for name, r in (("w", 1.0), ("l", 0.0), ("a", 0.0)))
    lose = replace(lose, steps=(win.steps[0], lose.steps[1]))
    (group,) = make_groups(g=[win, lose, alone])
    gains = await BranchValue().score_group(group)
    assert gains == pytest.approx({"w/0": 1 / 2 - 1 / 3, "w/1": 1 / 2, "l/1": -1 / 2, "a/0": -1 / 3, "a/1": 0.0})


@pytest.mark.parametrize("seed", range(5))
def test_gains_along_a_trajectory_sum_to_its_value_less_the_mean(seed: int) -> None:
    for group in random_groups(seed, members=6):
        values = {trajectory.id: float(place) for place, trajectory in enumerate(group.trajectories)}
        gains = step_gains(group, lambda trajectory: values[trajectory.id])  # noqa: B023
        for trajectory in group.trajectories:
            along = sum(gains[step.id] for step in trajectory.steps)
            assert along == pytest.approx(values[trajectory.id] - sum(values.values()) / len(values))
