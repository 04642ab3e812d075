"""A real language model behind a real vLLM server: evaluated as an API that parses tool calls, and served by ours."""

from __future__ import annotations

import asyncio
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import openai
import pytest
import torch
from forests import row_by_row
from served_desk import served
from served_smollm2 import NAME

from agentrl import models
from agentrl.engines.http import HttpClient
from agentrl.engines.vllm_api import sampling_body
from agentrl.evaluation.result import load_result
from agentrl.evaluation.table import table
from agentrl.plugins import load_host
from agentrl.protocols import EngineHealth, GenerateRequest
from agentrl.rollout.tokens import TokenPlayer
from agentrl.runs.evaluation import EvalSettings, evaluate, prepare
from agentrl.store.reader import FolderReader
from agentrl.training.sft import supervised_batch
from agentrl.types import Completion, Finish, token_ids

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


@dataclass
class Sampler:
    """Implements `tokens.Sampler` with the server as it is, and notes what it was sent and what it sampled."""

    http: HttpClient
    max_context: int = 1024
    version: int = 0
    whole: list[list[int]] = field(default_factory=list)
    "Of each answer, the prompt and what was sampled."

    async def generate(self, request: GenerateRequest) -> Completion:
        prompt = request.tokens.tolist()
        body = {"model": NAME, "token_ids": prompt, "sampling_params": sampling_body(request.sampling)}
        choice = (await self.http.post_json("/inference/v1/generate", body))["choices"][0]
        tokens, told = token_ids(choice["token_ids"]), choice["logprobs"]["content"]
        self.whole.append([*prompt, *tokens.tolist()])
        logprobs = np.array([entry["logprob"] for entry in told], np.float32)
        return Completion(tokens, logprobs, np.zeros(len(tokens), np.int32), Finish(choice["finish_reason"]))

    async def forget(self, session: str) -> None: ...

    async def health(self) -> EngineHealth:
        return EngineHealth(True)


async def test_what_vllm_samples_for_two_clients_at_once_is_recorded_and_is_the_learners(
    smollm2_url: str, tmp_path: Path
) -> None:
    weights = models.get("smollm2-135m")
    renderer = load_host().factory("renderers", "auto")(models.load_tokenizer(weights))
    async with HttpClient(smollm2_url.removesuffix("/v1"), timeout=300.0, attempts=1) as http:
        sampler = Sampler(http)
        async with served(tmp_path / "served", TokenPlayer(sampler, renderer), sampler.health) as client:

            async def talk(name: str) -> None:
                said: list[object] = [{"role": "user", "content": f"My name is {name}. Count to five."}]
                async with openai.AsyncOpenAI(base_url=f"{client.url}/v1/s/{name}", api_key="none") as agent:
                    for _ in range(2):
                        answer = await agent.chat.completions.create(model="bytes", messages=said, max_tokens=16)  # type: ignore[call-overload]
                        said += [answer.choices[0].message, {"role": "user", "content": "Go on."}]
                assert (await client.finish(name, success=True))["answers"] == 2

            await asyncio.gather(talk("Ada"), talk("Bo"))
    with FolderReader(tmp_path / "served") as reader:
        played = [reader.trajectory(row.id) for row in reader.rows()]
    assert sorted(t.id for t in played) == ["Ada-0", "Bo-0"] and all(t.forks == 0 for t in played)
    found = [t.tokens_through(step).tolist() for t in played for step in t.steps]
    assert sorted(found) == sorted(sampler.whole)
    assert {step.context for t in played for step in t.steps} == {None, "Ada-0.0", "Bo-0.0"}
    with torch.no_grad():
        learner, _ = row_by_row(models.load_model(weights), supervised_batch(played))
    sampled = [value for t in played for step in t.steps for value in step.logprobs.tolist()]
    assert sorted(learner.tolist()) == pytest.approx(sorted(sampled), abs=2e-3)
