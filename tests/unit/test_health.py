"""Health lines: each trouble is named in plain words with what to try, and health is silent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentrl.training.health import WINDOW, health_lines
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


def test_unmeasured_values_raise_no_alarm() -> None:
    assert health_lines([replace(WELL, mismatch=None, entropy=None, call_validity=None)] * 20) == []


def test_the_worst_comes_first() -> None:
    lines = health_lines([replace(WELL, failed=0.5, mismatch=1.0, truncated=1.0)])
    assert [line.split()[1] for line in lines] == ["of", "and", "of"]
    assert "fault" in lines[0]
