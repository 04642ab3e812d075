"""The transformers engine on 64 concurrent episodes against `generate` in lock-step batches on the same requests.

    python benchmarks/rollout_transformers.py [--quick] [--out benchmarks/results/rollout_transformers.json]

The model is the quick start's, warmed up for a few seconds. Ours is a whole rollout of 64 keydoor episodes, with the
environments and the log-probabilities. Lock-step is what a plain loop would do: step i of all episodes that still run
is one padded batch for `generate`, which starts from the whole prompt every time; it is given the prompts and the
numbers of tokens that ours had, no environment, and it returns no log-probabilities. The two take turns.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conditions import conditions
from support.results import Verdict, finish, middle, options
from support.subjects import Subject, keydoor_subject, play_groups

from agentrl import models
from agentrl.engines.transformers import TransformersEngine
from agentrl.types import Trajectory


@dataclass(frozen=True)
class Pair:
    """Both ways on the same requests."""

    ours: float
    "Seconds."
    lock_step: float
    tokens: int
    requests: int
    prompt_tokens: int


async def measure(subject: Subject, episodes: int, repeats: int) -> list[Pair]:
    model = models.load_model(subject.model_path)
    engine = TransformersEngine(model, max_context=subject.limits.max_context, max_batch=episodes)
    await engine.start()
    pairs = []
    try:
        for repeat in range(repeats + 1):  # the first one warms up
            async with subject.rollout(engine, episodes, seed=repeat) as rollout:
                began = time.perf_counter()
                tasks = subject.tasks(episodes, skip=repeat * episodes)
                groups = await play_groups(subject, rollout, tasks, 1)
                ours = time.perf_counter() - began
            played = [trajectory for group in groups for trajectory in group.trajectories]
            began = time.perf_counter()
            tokens, requests, prompts = lock_step(model, played)
            pairs.append(Pair(ours, time.perf_counter() - began, tokens, requests, prompts))
    finally:
        await engine.close()
    return pairs[1:]


@torch.inference_mode()
def lock_step(model: Any, played: Sequence[Trajectory]) -> tuple[int, int, int]:
    """Generate step by step for all episodes together; sampled tokens, requests and prompt tokens."""
    tokens = requests = prompts = 0
    for index in range(max(len(trajectory.steps) for trajectory in played)):
        running = [trajectory for trajectory in played if len(trajectory.steps) > index]
        steps = [trajectory.steps[index] for trajectory in running]
        asked = [t.tokens_through(s)[: -len(s.tokens)] for t, s in zip(running, steps, strict=True)]
        width = max(map(len, asked))
        ids, mask = np.zeros((len(asked), width), np.int64), np.zeros((len(asked), width), np.int64)
        for row, prompt in enumerate(asked):
            ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = prompt, 1
        # A batch runs until its longest answer has ended.
        longest = max(len(step.tokens) for step in steps)
        model.generate(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            max_new_tokens=longest,
            min_new_tokens=longest,
            eos_token_id=None,
            pad_token_id=0,
        )
        tokens += sum(len(step.tokens) for step in steps)
        requests += len(steps)
        prompts += sum(map(len, asked))
    return tokens, requests, prompts


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--episodes", type=int, help="concurrent (default 64, with --quick 8)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of torch, for both")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    before = conditions()

    async def run() -> list[Pair]:
        with tempfile.TemporaryDirectory() as folder:
            subject = await keydoor_subject(Path(folder), demonstrations=64 if chosen.quick else 600)
            episodes = chosen.episodes or (8 if chosen.quick else 64)
            return await measure(subject, episodes, 1 if chosen.quick else chosen.repeats)

    pairs = asyncio.run(run())
    ours, theirs = middle([p.tokens / p.ours for p in pairs]), middle([p.tokens / p.lock_step for p in pairs])
    ratio = middle([p.lock_step / p.ours for p in pairs])
    print(f"{'':24}{'tokens/s':>10}{'seconds':>9}")
    print(f"{'our engine, whole rollout':24}{ours['median']:9.0f}{middle([p.ours for p in pairs])['median']:9.2f}")
    print(f"{'generate in lock-step':24}{theirs['median']:10.0f}{middle([p.lock_step for p in pairs])['median']:9.2f}")
    print(f"a rollout: {pairs[0].requests} requests, {pairs[0].prompt_tokens} prompt and {pairs[0].tokens} new tokens")
    measured = {
        "our_tokens_per_second": ours,
        "lock_step_tokens_per_second": theirs,
        "ratio": ratio,
        "new_tokens": [p.tokens for p in pairs],
        "requests": [p.requests for p in pairs],
        "prompt_tokens": [p.prompt_tokens for p in pairs],
    }
    verdicts = [Verdict("tokens/s of ours over lock-step generate", ratio["median"], "at least", 1)]
    finish(chosen, before, measured, verdicts)


if __name__ == "__main__":
    main()
