"""The data that everything else speaks refuses what breaks its rules, and answers for what it holds."""

from dataclasses import replace

import numpy as np
import pytest
from builders import make_step, make_trajectory

from agentrl.errors import InvalidDataError
from agentrl.types import Completion, Finish, Group, GroupName, SamplingParams, Status, Task, Trajectory, token_ids


def test_arrays_have_one_entry_per_sampled_token():
    with pytest.raises(InvalidDataError, match="completion has 2 tokens, 1 logprobs and 2 versions"):
        Completion(token_ids([1, 2]), np.zeros(1, np.float32), token_ids([0, 0]), Finish.STOP)
    with pytest.raises(InvalidDataError, match="step t/0 has 2 tokens, 3 logprobs"):
        make_step("t", 0, tokens=[1, 2], logprobs=[-1.0, -1.0, -1.0])


@pytest.mark.parametrize("reward", [float("nan"), float("inf")])
def test_a_reward_is_finite(reward):
    with pytest.raises(InvalidDataError, match="a reward is a finite number"):
        make_step("t", 0, reward=reward)


@pytest.mark.parametrize(("tokens", "temperature"), [(0, 1.0), (-1, 1.0), (1, -0.1)])
def test_sampling_needs_a_token_and_a_temperature(tokens, temperature):
    with pytest.raises(InvalidDataError, match=f"max_tokens is {tokens}"):
        SamplingParams(tokens, temperature=temperature)
    assert SamplingParams(1, temperature=0.0).temperature == 0


def test_faults_and_cancellations_never_train():
    assert {status for status in Status if status.trains} == {Status.OK, Status.TRUNCATED, Status.POLICY_ERROR}


def test_a_trajectory_sums_its_rewards_and_knows_its_oldest_token():
    steps = (make_step("t", 0, reward=0.25, version=7), make_step("t", 1, reward=-1.0, version=5, last=True))
    trajectory = Trajectory("t", Task("a", "test"), "g", steps, Status.OK)
    assert trajectory.reward == -0.75
    assert trajectory.oldest_version == 5
    assert Trajectory("t", Task("a", "test"), "g", (), Status.OK).oldest_version == 0


@pytest.mark.parametrize(
    ("scores", "reward", "status", "success"),
    [
        ({"success": 1.0}, -3.0, Status.OK, True),
        ({"success": 0.0}, 3.0, Status.OK, False),
        ({}, 0.5, Status.OK, True),
        ({}, 0.0, Status.TRUNCATED, False),
        ({"success": 1.0}, 3.0, Status.ENVIRONMENT_ERROR, False),
    ],
)
def test_success_is_what_the_environment_says_and_else_a_positive_return(scores, reward, status, success):
    step = replace(make_step("t", 0, reward=reward, last=True), scores=scores)
    assert Trajectory("t", Task("a", "test"), "g", (step,), status).success is success


def test_the_deltas_along_the_context_are_what_the_engine_saw():
    first = make_step("t", 0, prompt=[1, 2], tokens=[10])
    second = make_step("t", 1, prompt=[3], tokens=[11, 12])
    anew = replace(make_step("t", 2, prompt=[4, 5], tokens=[13], last=True), context=None)
    trajectory = Trajectory("t", Task("a", "test"), "g", (first, second, anew), Status.OK)
    assert trajectory.tokens_through(second).tolist() == [1, 2, 10, 3, 11, 12]
    assert trajectory.tokens_through(anew).tolist() == [4, 5, 13]
    assert [step.id for step in trajectory.context_of(second)] == ["t/0", "t/1"]
    assert trajectory.tokens_through(anew).dtype == np.int32


def test_a_group_gives_each_step_once_also_when_branches_share_it():
    stem = make_trajectory("t", "g", [0.0, 1.0])
    branch = Trajectory("u", stem.task, "g", (stem.steps[0], make_step("u", 1, last=True)), Status.OK)
    group = Group("g", stem.task, (stem, branch))
    assert [step.id for step in group.steps()] == ["t/0", "t/1", "u/1"]


def test_ids_are_32_bit_integers():
    assert token_ids([1, 2]).dtype == np.int32 and token_ids(np.array([1, 2], np.int64)).dtype == np.int32


def test_the_name_of_a_group_says_which_task_and_which_time():
    for name in (GroupName(12), GroupName(12, 1), GroupName(1234567, 20)):
        assert GroupName.read(str(name)) == name
    assert [str(GroupName(12)), str(GroupName(12, 3))] == ["g000012", "g000012r3"]
    assert [GroupName.read(name) for name in ("retail-3", "g12@4", "g1r", "r1", "")] == [None] * 5
