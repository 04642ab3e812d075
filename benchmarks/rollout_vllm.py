"""A multi-turn rollout of SmolLM2-135M through our engine against raw vLLM generation at the same concurrency.

    python benchmarks/rollout_vllm.py [--quick] [--out benchmarks/results/rollout_vllm.json]

Ours plays whole tool_desk episodes: environments, rendering, log-probabilities, versions, seeds and records. Raw is one
plain HTTP client that sends the same prompts to the same server for the same numbers of tokens, with as many chains of
requests in flight as ours had episodes, and asks for nothing but token ids. The two take turns, the prefix cache is
emptied before each, and a ratio is of one turn. Sampling more than a stop token ends is impossible in both: raw is told
how many tokens ours sampled, and to ignore what would end a completion.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from conditions import conditions
from support.results import Verdict, finish, middle, options
from support.subjects import Subject, play_groups, tool_desk_subject

from agentrl.engines.vllm_api import ServerSettings, best_dtype
from agentrl.engines.vllm_server import VllmEngine
from agentrl.ports import free_port
from agentrl.types import Trajectory


@dataclass(frozen=True)
class Pair:
    """Both ways on the same requests."""

    ours: float
    "Seconds."
    raw: float
    tokens: int
    requests: int
    prompt_tokens: int


async def measure(chosen: argparse.Namespace, episodes: int, repeats: int, folder: Path) -> list[Pair]:
    subject = tool_desk_subject(chosen.model)
    port = free_port()
    engine = VllmEngine(
        subject.model_path,
        log_folder=folder,
        dtype=chosen.dtype,
        max_context=subject.limits.max_context or 2048,
        max_sequences=chosen.concurrency,
        server=ServerSettings(threads=chosen.threads, port=port),
    )
    pairs = []
    await engine.start()
    try:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=chosen.concurrency)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=600.0, limits=limits, trust_env=False
        ) as client:
            await one_pair(subject, engine, client, chosen, min(episodes, 8), 0)  # warms up
            for repeat in range(repeats):
                pairs.append(await one_pair(subject, engine, client, chosen, episodes, repeat + 1))
    finally:
        await engine.close()
    return pairs


async def one_pair(
    subject: Subject,
    engine: VllmEngine,
    client: httpx.AsyncClient,
    chosen: argparse.Namespace,
    episodes: int,
    repeat: int,
) -> Pair:
    tasks = subject.tasks(-(-episodes // chosen.group), skip=1000 * repeat)
    await engine.api.reset_prefix_cache()
    began = time.perf_counter()
    async with subject.rollout(engine, chosen.concurrency, seed=repeat) as rollout:
        groups = await play_groups(subject, rollout, tasks, chosen.group)
    ours = time.perf_counter() - began
    played = [trajectory for group in groups for trajectory in group.trajectories]
    chains = [bodies(trajectory) for trajectory in played]
    await engine.api.reset_prefix_cache()
    began = time.perf_counter()
    tokens = await replay(client, chains, chosen.concurrency)
    raw = time.perf_counter() - began
    wanted = sum(len(step.tokens) for trajectory in played for step in trajectory.steps)
    if tokens != wanted:
        raise SystemExit(f"raw vLLM sampled {tokens} tokens and ours {wanted}; the two did not do the same work.")
    requests = [body for chain in chains for body in chain]
    return Pair(ours, raw, tokens, len(requests), sum(len(body["token_ids"]) for body in requests))


def bodies(trajectory: Trajectory) -> list[dict[str, Any]]:
    """The requests of one episode, as plain as the server allows."""
    found = []
    for step in trajectory.steps:
        prompt = trajectory.tokens_through(step)[: -len(step.tokens)]
        sampling = {"max_tokens": len(step.tokens), "temperature": 1.0, "ignore_eos": True, "detokenize": False}
        found.append({"model": "policy", "token_ids": prompt.tolist(), "sampling_params": sampling})
    return found


async def replay(client: httpx.AsyncClient, chains: Sequence[Sequence[dict[str, Any]]], concurrency: int) -> int:
    """Send every chain in order, at most `concurrency` chains at once; how many tokens came back."""
    left = iter(chains)

    async def worker() -> int:
        tokens = 0
        for chain in left:
            for body in chain:
                answer = await client.post("/inference/v1/generate", json=body)
                answer.raise_for_status()
                tokens += len(answer.json()["choices"][0]["token_ids"])
        return tokens

    return sum(await asyncio.gather(*(worker() for _ in range(concurrency))))


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default=best_dtype("cpu"))
    parser.add_argument("--episodes", type=int, help="of one rollout (default 96, with --quick 8)")
    parser.add_argument("--concurrency", type=int, default=48, help="episodes in flight")
    parser.add_argument("--group", type=int, default=8, help="episodes of one task")
    parser.add_argument("--threads", type=int, default=1, help="of the server's worker")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    before = conditions()
    episodes = chosen.episodes or (8 if chosen.quick else 96)
    with tempfile.TemporaryDirectory() as folder:
        pairs = asyncio.run(measure(chosen, episodes, 1 if chosen.quick else chosen.repeats, Path(folder)))
    ours, raw = middle([p.tokens / p.ours for p in pairs]), middle([p.tokens / p.raw for p in pairs])
    ratio = middle([p.raw / p.ours for p in pairs])
    print(f"{'':26}{'tokens/s':>9}{'seconds':>9}")
    print(f"{'our engine, whole rollout':26}{ours['median']:9.0f}{middle([p.ours for p in pairs])['median']:9.2f}")
    print(f"{'raw vLLM':26}{raw['median']:9.0f}{middle([p.raw for p in pairs])['median']:9.2f}")
    print(f"a rollout: {pairs[0].requests} requests, {pairs[0].prompt_tokens} prompt and {pairs[0].tokens} new tokens")
    measured = {
        "our_tokens_per_second": ours,
        "raw_tokens_per_second": raw,
        "ratio": ratio,
        "new_tokens": [p.tokens for p in pairs],
        "requests": [p.requests for p in pairs],
        "prompt_tokens": [p.prompt_tokens for p in pairs],
    }
    finish(chosen, before, measured, [Verdict("tokens/s of ours over raw vLLM", ratio["median"], "at least", 0.9)])


if __name__ == "__main__":
    main()
