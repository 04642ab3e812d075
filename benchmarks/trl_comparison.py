"""One RL update of SmolLM2-135M on a CPU, rollouts included, beside TRL's GRPOTrainer on the same work.

    python -m pip install --target FOLDER --no-deps trl==1.16.0 datasets pandas pyarrow xxhash multiprocess dill \\
        python-dateutil six
    python benchmarks/trl_comparison.py --trl FOLDER [--vllm] [--quick] [--out benchmarks/results/trl_comparison.json]

TRL is not a dependency of this project: the first command puts it into a folder of its own, over the torch and
transformers that are installed here. Without `--trl` only ours is measured.

The work is one tool call: 6 prompts, 8 samples each, at most 26 new tokens, LoRA of rank 16 on all linear layers,
GRPO with AdamW, in bfloat16 where the processor computes in it and in float32 elsewhere (`--dtype`). Both sides get
the same prompt ids and the same reward. TRL runs in a process of its own and waits for a word before every update, so
that the sides take turns; the first update of each is not counted. Ours holds all that a run does: publish, episodes
with their ledger, credit, update. With `--vllm` a further side samples on our vLLM server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from conditions import conditions, package_version
from support.one_call import (
    ALPHA,
    LEARNING_RATE,
    NEW_TOKENS,
    PROMPTS,
    RANK,
    SAMPLES,
    Likeness,
    OneCall,
    wanted,
)
from support.results import Verdict, finish, middle, options
from support.subjects import shrunk
from support.trl_side import ANSWER

from agentrl import models
from agentrl.engines.transformers import TransformersEngine
from agentrl.engines.vllm_api import best_dtype
from agentrl.engines.vllm_server import VllmEngine
from agentrl.environment import adapt
from agentrl.methods.groups import grpo
from agentrl.protocols import Engine, Environment, LearnerSide, Renderer, WeightPublisher
from agentrl.rendering import make_renderer
from agentrl.rollout.accounting import BatchShape
from agentrl.rollout.collector import Collector
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.rollout.rewarding import RewardTerm
from agentrl.rollout.strategies.independent import Independent
from agentrl.rollout.tokens import TokenPlayer
from agentrl.store.ledger import Ledger
from agentrl.tasks.samplers import SequentialSampler
from agentrl.training.learner import LearnerSettings, LoraSettings, TorchLearner

MAX_CONTEXT = 512


@dataclass
class Side:
    """The updates of one side, without its first."""

    name: str
    seconds: list[float] = field(default_factory=list)
    rollout: list[float] = field(default_factory=list)
    learning: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    "Of the process that learns; a vLLM server's is not in it."
    tokens: list[int] = field(default_factory=list)
    "Sampled in each update."

    def add(self, rollout: float, learning: float, cpu: float, tokens: int) -> None:
        self.seconds.append(rollout + learning)
        self.rollout.append(rollout)
        self.learning.append(learning)
        self.cpu.append(cpu)
        self.tokens.append(tokens)

    def told(self) -> dict[str, Any]:
        parts = {"seconds": self.seconds, "rollout_seconds": self.rollout, "learning_seconds": self.learning}
        parts["cpu_seconds"] = self.cpu
        return {name: middle(values) for name, values in parts.items()} | {"new_tokens": self.tokens}


class Ours:
    """One training run without its recipe, its report and its checkpoints."""

    def __init__(
        self, learner: TorchLearner, publisher: WeightPublisher, collector: Collector, ledger: Ledger, side: Side
    ) -> None:
        self.side = side
        self._learner, self._publisher, self._collector = learner, publisher, collector
        self._method = grpo()

    async def update(self, *, counted: bool) -> None:
        began, cpu = time.perf_counter(), time.process_time()
        version = self._learner.version
        await self._publisher.publish(version, self._learner.named_tensors())
        groups = await self._collector.next_batch(version)
        sampled = time.perf_counter()
        report = await asyncio.to_thread(self._learner.update, self._method.batch(groups))
        ended = time.perf_counter()
        if not report.updated:
            raise SystemExit(f"no update was made: {report.reason}")
        tokens = sum(len(step.tokens) for group in groups for step in group.steps())
        if counted:
            self.side.add(sampled - began, ended - sampled, time.process_time() - cpu, tokens)


@asynccontextmanager
async def ours(name: str, model: Path, dtype: str, *, vllm: bool) -> AsyncIterator[Ours]:
    """A side of ours, with an engine in process or with a server."""
    learner = TorchLearner(
        models.load_model(model, dtype=dtype),
        grpo().objective(),
        settings=LearnerSettings(learning_rate=LEARNING_RATE, micro_batch_tokens=4096, lora=LoraSettings(RANK, ALPHA)),
        source=model,
    )
    renderer = make_renderer(models.load_tokenizer(model))
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engine: Engine
        if vllm:
            engine = VllmEngine(
                model, log_folder=folder, dtype=dtype, max_context=MAX_CONTEXT, max_sequences=PROMPTS * SAMPLES
            )
        else:
            engine = TransformersEngine(learner.model, max_context=MAX_CONTEXT, max_batch=PROMPTS * SAMPLES)
        stack.push_async_callback(engine.close)
        await engine.start()
        publisher = engine.publisher(LearnerSide(learner.model, learner.score, folder))
        slots = Supervision(environment_slots=PROMPTS * SAMPLES, engine_slots=PROMPTS * SAMPLES)
        rollout = await stack.enter_async_context(
            RolloutEngine(
                environment,
                TokenPlayer(engine, renderer),
                limits=EpisodeLimits(max_steps=1, max_tokens=NEW_TOKENS, max_context=MAX_CONTEXT),
                supervision=slots,
                rewards=[RewardTerm("likeness", Likeness(renderer))],
            )
        )
        ledger = stack.enter_context(Ledger(folder / "run"))
        sampler = SequentialSampler(lambda: environment().tasks("train"))
        shape = BatchShape(groups=PROMPTS, group_size=SAMPLES)
        collector = await stack.enter_async_context(Collector(rollout, Independent(), sampler, ledger, shape))
        yield Ours(learner, publisher, collector, ledger, Side(name))


class Theirs:
    """TRL in its own process."""

    def __init__(self, trl: Path, model: Path, folder: Path, dtype: str, *, updates: int, threads: int) -> None:
        self.side = Side("TRL GRPOTrainer")
        job = folder / "job.json"
        rows = prompts(make_renderer(models.load_tokenizer(model)), PROMPTS * updates)
        told = {"model": str(model), "dtype": dtype, "rows": rows, "updates": updates, "threads": threads}
        job.write_text(json.dumps(told))
        paths = [str(trl), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        self.log = (folder / "trl.log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.trl_side", str(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1"},
        )

    def wait_until_ready(self) -> None:
        self._answer()

    def update(self, *, counted: bool) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        told = self._answer()
        if counted:
            self.side.add(told["rollout"], told["learning"], told["cpu"], told["tokens"])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self.log.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(ANSWER):
                found: dict[str, Any] = json.loads(line[len(ANSWER) :])
                return found
        self.log.seek(0)
        raise SystemExit(f"TRL ended early:\n{self.log.read()[-3000:]}")


def environment() -> Environment:
    return adapt(OneCall())


def prompts(renderer: Renderer, number: int) -> list[dict[str, str]]:
    """The prompts of our episodes as text that TRL's tokenizer makes the same ids of; in the order of our sampler."""

    async def render() -> list[dict[str, str]]:
        rows, world = [], environment()
        for task in islice(world.tasks("train"), number):
            shown = await world.reset(task)
            text = renderer.decode(renderer.render(shown.messages, world.tools()))
            rows.append({"prompt": text, "target": wanted(task)})
        return rows

    return asyncio.run(render())


async def measure(chosen: argparse.Namespace, model: Path, theirs: Theirs | None, repeats: int) -> list[Side]:
    async with AsyncExitStack() as stack:
        mine = [await stack.enter_async_context(ours("ours, transformers", model, chosen.dtype, vllm=False))]
        if chosen.vllm:
            mine.append(await stack.enter_async_context(ours("ours, vLLM server", model, chosen.dtype, vllm=True)))
        if theirs is not None:
            await asyncio.to_thread(theirs.wait_until_ready)
        for repeat in range(repeats + 1):
            for one in mine:
                await one.update(counted=repeat > 0)
            if theirs is not None:
                await asyncio.to_thread(theirs.update, counted=repeat > 0)
    return [one.side for one in mine] + ([theirs.side] if theirs is not None else [])


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--trl", type=Path, help="the folder into which TRL was installed; see above")
    parser.add_argument("--vllm", action="store_true", help="measure ours with a vLLM server too")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch, for each side in its turn")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default=best_dtype("cpu"), help="of both sides")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    before = conditions()
    repeats = 1 if chosen.quick else chosen.repeats
    with tempfile.TemporaryDirectory() as folder:
        theirs = None
        model = models.resolve(chosen.model)
        if chosen.quick:
            model = shrunk(model, Path(folder) / "model")
        if chosen.trl is not None:
            theirs = Theirs(chosen.trl, model, Path(folder), chosen.dtype, updates=repeats + 1, threads=chosen.threads)
        try:
            sides = asyncio.run(measure(chosen, model, theirs, repeats))
        finally:
            if theirs is not None:
                theirs.close()
    print(f"{'':20}{'s an update':>12}{'rollout':>9}{'learning':>10}{'CPU s':>8}{'new tokens':>12}")
    for side in sides:
        told = side.told()
        times = [told[name]["median"] for name in ("seconds", "rollout_seconds", "learning_seconds", "cpu_seconds")]
        print(f"{side.name:20}{times[0]:12.2f}{times[1]:9.2f}{times[2]:10.2f}{times[3]:8.1f}{max(side.tokens):12d}")
    verdicts = []
    if theirs is None:
        print("TRL was not measured: --trl names no folder. See --help for the command that installs it.")
    else:
        for side in sides[:-1]:
            shares = [a / b for a, b in zip(side.seconds, theirs.side.seconds, strict=True)]
            verdicts.append(Verdict(f"{side.name}: share of TRL's time", middle(shares)["median"], "at most", 0.25))
    measured = {side.name: side.told() for side in sides}
    before["packages"]["trl"] = package_version("trl") or ("in --trl" if theirs else "")
    finish(chosen, before, measured, verdicts)


if __name__ == "__main__":
    main()
