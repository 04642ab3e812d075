"""What `agentrl serve` is told of rollouts that verifiers saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agentrl_verifiers.finish import verdicts


def saved(folder: Path, **trace: Any) -> Path:
    task = {"data": {"prompt": "?"}, "key": "0123456789abcdef0123"}
    whole = {"id": "a1", "ok": True, "task": task, "agent": {"trainable": True}, "rewards": {}, "metrics": {}, **trace}
    episode = {"ok": whole["ok"], "errors": [], "traces": [whole]}
    file = folder / "traces.jsonl"
    file.write_text(json.dumps(episode) + "\n", encoding="utf-8")
    return file


def test_the_reward_is_the_weighted_sum_and_every_reward_and_metric_a_score(tmp_path: Path) -> None:
    rewards = {"reached": {"score": 1.0, "weight": 1.0}, "said": {"score": 1.0, "weight": 0.5}, "unasked": None}
    told = list(verdicts(saved(tmp_path, rewards=rewards, metrics={"turns": 3.0, "unknown": None})))
    assert told == [
        ("a1", {"task": "0123456789abcdef", "reward": 1.5, "scores": {"turns": 3.0, "reached": 1.0, "said": 1.0}})
    ]


def test_a_rollout_that_failed_is_told_as_failed_and_not_as_zero(tmp_path: Path) -> None:
    told = list(verdicts(saved(tmp_path, ok=False, errors=[{"type": "ToolsetError", "message": "no port"}])))
    assert told == [("a1", {"outcome": "failed", "reason": "ToolsetError: no port"})]


def test_a_seat_that_is_not_trained_is_no_session_of_the_policy(tmp_path: Path) -> None:
    assert list(verdicts(saved(tmp_path, agent={"trainable": False}))) == []
