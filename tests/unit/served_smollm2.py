"""A real language model behind vLLM's OpenAI endpoint, as anyone would start it: one server for all the tests of it.

Our own server has no tokenizer, and so no chat. This one calls tools and keeps to a JSON schema.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from agentrl import models
from agentrl.engines.http import HttpClient
from agentrl.engines.vllm_api import ServerOptions, server_environment
from agentrl.engines.vllm_process import ProcessFiles, ServerProcess
from agentrl.errors import InfrastructureFault
from agentrl.ports import free_port

NAME = "smollm2"
START_SECONDS = 400.0
# SmolLM2's own template leaves tools out. This one writes calls as Hermes does, which is what the server parses.
TEMPLATE = """\
<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}
{% if tools %}
Tools:
{% for tool in tools %}{{ tool.function | tojson }}
{% endfor %}{% endif %}<|im_end|>
{% for message in messages if message.role != 'system' %}{% if message.role == 'tool' %}<|im_start|>user
<tool_response>{{ message.content }}</tool_response><|im_end|>
{% else %}<|im_start|>{{ message.role }}
{% for call in message.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}{{ message.content or '' }}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Its address."""
    template = folder / "hermes.jinja"
    template.write_text(TEMPLATE)
    options = ServerOptions(models.get("smollm2-135m"), dtype="float32", max_context=4096)
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--model", str(options.model), "--served-model-name", NAME, "--dtype", options.dtype]
    command += ["--max-model-len", str(options.max_context), "--max-num-seqs", "8", "--enforce-eager"]
    command += ["--kv-cache-memory-bytes", str(1 << 30), "--generation-config", "vllm", "--disable-log-stats"]
    # Token ids in, token ids out, beside the chat.
    command += ["--enable-scale-out"]
    command += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--chat-template", str(template)]
    files = ProcessFiles(folder / "vllm.log", folder / "vllm.label.json")
    process = ServerProcess("the vLLM server", command, server_environment(options), files)
    process.start()
    url = f"http://127.0.0.1:{port}/v1"
    try:
        asyncio.run(answered(url, process))
        yield url
    finally:
        asyncio.run(process.stop())


async def answered(url: str, process: ServerProcess) -> None:
    async with asyncio.timeout(START_SECONDS), HttpClient(url, attempts=1) as client:
        while process.exit_code is None:
            try:
                await client.get_json("models", 5.0)
                return
            except InfrastructureFault:
                await asyncio.sleep(0.5)
    raise AssertionError(process.obituary())
