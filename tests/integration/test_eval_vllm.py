"""`agentrl eval` of a real vLLM server that parses tool calls itself, with a real language model behind it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from agentrl.evaluation.result import load_result
from agentrl.evaluation.table import table
from agentrl.plugins import load_host
from agentrl.runs.evaluation import EvalSettings, evaluate, prepare
from agentrl.store.reader import FolderReader

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.timeout(900),
]


async def test_a_language_model_behind_vllm_calls_the_desks_tools(smollm2_url: str, tmp_path: Path) -> None:
    host, out = load_host(), tmp_path / "evaluation"
    asked = EvalSettings("tool-desk", smollm2_url, out=out, limit=4, max_tokens=48, concurrency=4)
    result = await evaluate(prepare(asked, host), host, lambda run: None)
    assert result.faults() == 0, [attempt.error for attempt in result.attempts]
    # A model of 135M parameters may win or lose; that calls came through as calls is what is shown.
    assert sum(attempt.calls for attempt in result.attempts) > 0
    assert all(attempt.prompt_tokens > attempt.tokens > 0 for attempt in result.attempts)
    with FolderReader(out) as reader:
        steps = [step for row in reader.rows() for step in reader.trajectory(row.id).steps]
    assert any(call.name for step in steps for call in step.action.tool_calls)
    assert load_result(out) == result and result.null is not None and result.null.score.value == 0.0
    print("\n".join(table(result)))
