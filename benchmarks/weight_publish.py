"""How long a weight publish into a running vLLM server takes, write and verification included.

    python benchmarks/weight_publish.py [--quick] [--out benchmarks/results/weight_publish.json]

Medians over the repeats after one to warm up. Requests are in flight during every publish. The target for 135M
parameters on a CPU is under one second.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conditions import conditions
from support.results import Verdict, finish, middle, options

from agentrl import models
from agentrl.engines.vllm_api import best_dtype
from agentrl.engines.vllm_publish import PublishReport, VllmPublisher
from agentrl.engines.vllm_server import VllmEngine
from agentrl.protocols import GenerateRequest
from agentrl.types import Floats, SamplingParams, TokenIds, token_ids

TARGET_SECONDS = 1.0


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default=best_dtype("cpu"))
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    chosen.repeats = 1 if chosen.quick else chosen.repeats
    before = conditions()
    with tempfile.TemporaryDirectory() as folder:
        measured = asyncio.run(measure(chosen, Path(folder)))
    for name, value in measured.items():
        print(f"{name:26}{value['median'] if isinstance(value, dict) else value:12.4g}")
    seconds = measured["publish seconds"]["median"]
    finish(chosen, before, measured, [Verdict("publish", seconds, "below", TARGET_SECONDS, "s")])


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
        "MB": round(reports[0].bytes / 1e6, 1),
        "publish seconds": middle(seconds),
        "write seconds": middle([r.write_seconds for r in reports]),
        "sampling held seconds": middle([r.swap_seconds for r in reports]),
        "verify seconds": middle([r.verify_seconds for r in reports]),
        "probe mismatch, nats": max(r.mismatch for r in reports),
    }


async def keep_busy(engine: VllmEngine, count: int) -> None:
    """`count` requests at every moment."""

    async def one(seed: int) -> None:
        prompt = token_ids(np.random.default_rng(seed).integers(0, engine.vocabulary, 64))
        while True:
            await engine.generate(GenerateRequest(prompt, SamplingParams(max_tokens=256, seed=seed)))

    await asyncio.gather(*(one(seed) for seed in range(count)))


if __name__ == "__main__":
    main()
