"""Health lines: each trouble is named in plain words with what to try, and health is silent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentrl.training.health import WINDOW, health_lines, health_of
from agentrl.training.report import ProgressReport

WELL = ProgressReport(
    update=1,
    batch=1,
    batches=10,
    reward=0.5,
    reward_interval=(0.4, 0.6),
    success=0.5,
    call_validity=0.99,
    calls=4.0,
    flat_groups=0.2,
    truncated=0.1,
    failed=0.0,
    mismatch=0.001,
    entropy=0.8,
    tokens_per_episode=100.0,
    environment_reward=0.5,
    null_reward=0.0,
    null_success=0.0,
)


def test_a_healthy_run_says_nothing() -> None:
    assert health_lines([]) == []
    assert health_lines([WELL] * 20) == []


@pytest.mark.parametrize(
    ("trouble", "said", "advice"),
    [
        ({"flat_groups": 0.87}, "87% of the groups have equal rewards", "a higher temperature"),
        (
            {"flat_groups": 0.9, "success": 0.99},
            "90% of the groups have no signal because nearly all succeed",
            "harder",
        ),
        ({"call_validity": 0.6}, "40% of the tool calls are malformed", "warm start"),
        ({"calls": 0.0, "call_validity": None}, "no tool was ever called", "renderer"),
        ({"mismatch": 0.25}, "engine and learner disagree by 0.25 nats a token", "float32"),
        ({"truncated": 0.75}, "75% of the episodes were cut by a limit", "max_tokens"),
        ({"stale": 0.4}, "40% of the groups were too old", "max_staleness"),
        ({"staleness": 6.0, "staleness_max": 8}, "the tokens trained on are 6.0 policy versions old", "minibatches"),
        ({"null_success": 0.5}, "an agent that says nothing succeeds in 50% of the tasks", "agentrl env check"),
        (
            {"null_reward": 0.0, "environment_reward": -0.4},
            "saying nothing earns 0.00 an episode and the policy earns -0.40",
            "costs",
        ),
        ({"failed": 0.2}, "20% of the episodes ended in a fault", "agentrl env check"),
    ],
)
def test_each_trouble_is_named_with_what_to_try(trouble: dict[str, float], said: str, advice: str) -> None:
    (line,) = health_lines([replace(WELL, **trouble)] * WINDOW)
    assert line.startswith(said)
    assert advice in line


def test_one_odd_batch_raises_no_alarm() -> None:
    odd = replace(WELL, flat_groups=1.0, truncated=1.0, call_validity=0.0, failed=0.4)
    assert health_lines([WELL] * 4 + [odd]) == []


def test_an_old_trouble_is_forgotten() -> None:
    assert health_lines([replace(WELL, flat_groups=1.0)] * 9 + [WELL] * WINDOW) == []


def test_an_environment_without_tools_is_not_told_to_call_them() -> None:
    assert health_lines([replace(WELL, calls=0.0, call_validity=None, offers_tools=False)]) == []


def test_entropy_that_collapses_before_success_is_named() -> None:
    lost = replace(WELL, entropy=0.02, success=0.3)
    (line,) = health_lines([WELL] * 5 + [lost] * 5)
    assert line.startswith("entropy fell from 0.80 to 0.020 nats a token while success is 30%")
    assert health_lines([WELL] * 5 + [replace(lost, success=0.99)] * 5) == []


@pytest.mark.parametrize(
    "fine",
    [
        {"stale": 0.15, "staleness": 3.0, "staleness_max": 6},
        {"null_success": 0.05, "null_reward": 0.3},
        {"null_reward": 0.5},
        {"null_reward": None, "null_success": None, "environment_reward": -1.0},
    ],
)
def test_what_is_within_bounds_is_not_named(fine: dict[str, float | None]) -> None:
    assert health_lines([replace(WELL, **fine)] * 3 * WINDOW) == []


@pytest.mark.parametrize(("tokens", "said"), [(260.0, "episodes grew from 100 to 260"), (40.0, "episodes shrank")])
def test_a_length_that_drifts_without_success_is_named(tokens: float, said: str) -> None:
    drifted = replace(WELL, tokens_per_episode=tokens, success=0.52)
    (line,) = health_lines([WELL] * 5 + [drifted] * 5)
    assert line.startswith(said) and "success went +2 points" in line and "Try" in line
    assert health_lines([WELL] * 5 + [replace(drifted, success=0.7)] * 5) == []
    assert health_lines([WELL] * 5 + [replace(drifted, tokens_per_episode=150.0)] * 5) == []
    assert health_lines([replace(WELL, tokens_per_episode=None)] * 5 + [drifted] * 5) == []


@pytest.mark.parametrize(
    "trouble",
    [
        {},
        {"flat_groups": 0.9, "failed": 0.3, "mismatch": 0.4, "truncated": 0.8, "stale": 0.5},
        {"calls": 0.0, "call_validity": None},
        {"calls": 0.0, "call_validity": None, "offers_tools": False, "staleness": 9.0, "staleness_max": 9},
        {"entropy": 0.01, "tokens_per_episode": 900.0, "null_success": 1.0},
        {"mismatch": None, "entropy": None, "null_reward": None, "null_success": None},
    ],
)
def test_a_folder_says_what_the_panel_said(trouble: dict[str, float | None]) -> None:
    history = [WELL] * WINDOW + [replace(WELL, **trouble)] * WINDOW
    lines = [{"batch": number, **report.metrics()} for number, report in enumerate(history)]
    assert health_of(lines) == health_lines(history)


def test_unmeasured_values_raise_no_alarm() -> None:
    assert health_lines([replace(WELL, mismatch=None, entropy=None, call_validity=None)] * 20) == []


def test_the_worst_comes_first() -> None:
    lines = health_lines([replace(WELL, failed=0.5, mismatch=1.0, truncated=1.0)])
    assert [line.split()[1] for line in lines] == ["of", "and", "of"]
    assert "fault" in lines[0]
