"""`agentrl eval` of a real vLLM server that parses tool calls itself, with a real language model behind it."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agentrl import models
from agentrl.engines.http import HttpClient
from agentrl.engines.vllm_api import ServerOptions, server_environment
from agentrl.engines.vllm_process import ProcessFiles, ServerProcess
from agentrl.errors import InfrastructureFault
from agentrl.evaluation.result import load_result
from agentrl.evaluation.table import table
from agentrl.plugins import load_host
from agentrl.runs.evaluation import EvalSettings, evaluate, prepare
from agentrl.store.reader import FolderReader

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.timeout(570),
]
START_SECONDS = 400.0
# SmolLM2's own template leaves tools out. This one writes calls as Hermes does, which is what the server parses.
TEMPLATE = """\
<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}

Tools:
{% for tool in tools or [] %}{{ tool.function | tojson }}
{% endfor %}<|im_end|>
{% for message in messages if message.role != 'system' %}{% if message.role == 'tool' %}<|im_start|>user
<tool_response>{{ message.content }}</tool_response><|im_end|>
{% else %}<|im_start|>{{ message.role }}
{% for call in message.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}{{ message.content or '' }}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[str]:
    """The address of a server of SmolLM2 that calls tools."""
    template = tmp_path / "hermes.jinja"
    template.write_text(TEMPLATE)
    options = ServerOptions(models.get("smollm2-135m"), dtype="float32", max_context=4096)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--model", str(options.model), "--served-model-name", "smollm2", "--dtype", options.dtype]
    command += ["--max-model-len", str(options.max_context), "--max-num-seqs", "8", "--enforce-eager"]
    command += ["--kv-cache-memory-bytes", str(1 << 30), "--generation-config", "vllm", "--disable-log-stats"]
    command += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--chat-template", str(template)]
    files = ProcessFiles(tmp_path / "vllm.log", tmp_path / "vllm.label.json")
    process = ServerProcess("the vLLM server", command, server_environment(options), files)
    process.start()
    try:
        url = f"http://127.0.0.1:{port}/v1"
        async with asyncio.timeout(START_SECONDS), HttpClient(url, attempts=1) as client:
            while process.exit_code is None:
                try:
                    await client.get_json("models", 5.0)
                    break
                except InfrastructureFault:
                    await asyncio.sleep(0.5)
        assert process.exit_code is None, process.obituary()
        yield url
    finally:
        await process.stop()


async def test_a_language_model_behind_vllm_calls_the_desks_tools(server: str, tmp_path: Path) -> None:
    host, out = load_host(), tmp_path / "evaluation"
    asked = EvalSettings("tool-desk", server, out=out, limit=4, max_tokens=48, concurrency=4)
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
