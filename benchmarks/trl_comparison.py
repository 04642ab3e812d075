"""One RL update of SmolLM2-135M on a CPU, rollouts included, beside TRL's GRPOTrainer on the same work.

    python -m pip install --target FOLDER --no-deps trl==1.16.0 datasets pandas pyarrow xxhash multiprocess dill \\
        python-dateutil six
    python benchmarks/trl_comparison.py --trl FOLDER [--vllm] [--quick] [--out benchmarks/results/trl_comparison.json]

TRL is not a dependency of this project: the first command puts it into a folder of its own, over the torch and
transformers that are installed here. Without `--trl` only ours is measured.

The work is one tool call: 6 prompts, 8 samples each, at most 26 new tokens, LoRA of rank 16 on all linear layers,
GRPO with AdamW, in bfloat16 where the processor computes in it and in float32 elsewhere (`--dtype`). Both sides get
the same prompt ids and the same reward, and as many threads. Each runs in a process of its own and waits for a word
before every update, so that the sides take turns, first the one, then the other first; the first `--warmups` updates
of each are not timed. Ours holds all that a run does: publish, episodes with their ledger, credit, update. With
`--vllm` a further side samples on our vLLM server.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from conditions import conditions, package_version
from support.one_call import PROMPTS, prompts
from support.results import Verdict, finish, middle, options
from support.subjects import shrunk
from support.turns import Side, SideProcess

from agentrl import models
from agentrl.engines.vllm_api import best_dtype
from agentrl.rendering import make_renderer

SHARE = 0.25


def measure(chosen: argparse.Namespace, job: dict[str, Any], folder: Path, updates: int) -> list[Side]:
    """The sides after so many timed updates, or as many as time allows; TRL last if it is measured."""
    turns = chosen.warmups + updates
    with ExitStack() as stack:
        sides: list[SideProcess] = []

        def start(name: str, module: str, more: dict[str, Any], *paths: Path) -> None:
            sides.append(SideProcess(name, module, job | more, folder, paths))
            stack.callback(sides[-1].close)
            sides[-1].wait_until_ready()

        start("ours, transformers", "support.our_side", {"engine": "transformers"})
        if chosen.vllm:
            start("ours, vLLM server", "support.our_side", {"engine": "vllm"})
        if chosen.trl is not None:
            rows = prompts(make_renderer(models.load_tokenizer(Path(job["model"]))), PROMPTS * turns)
            start("TRL GRPOTrainer", "support.trl_side", {"rows": rows, "updates": turns}, chosen.trl)
        began, longest = time.perf_counter(), 0.0
        for number in range(turns):
            round_began = time.perf_counter()
            if number > chosen.warmups and round_began - began + longest > 60 * chosen.minutes:
                print(f"{chosen.minutes:g} minutes do not hold another turn")
                break
            for side in sides if number % 2 else reversed(sides):
                side.update(timed=number >= chosen.warmups)
                print(f"update {number} of {side.side.name}, {time.perf_counter() - began:.0f} s in", flush=True)
            longest = max(longest, time.perf_counter() - round_began)
    return [side.side for side in sides]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--trl", type=Path, help="the folder into which TRL was installed; see above")
    parser.add_argument("--vllm", action="store_true", help="measure ours with a vLLM server too")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--updates", type=int, default=3, help="timed ones of each side")
    parser.add_argument("--warmups", type=int, default=1, help="updates of each side before those")
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="no further turn is begun that would not fit; 1 is timed"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch, for each side in its turn")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default=best_dtype("cpu"), help="of both sides")
    chosen = parser.parse_args()
    before = conditions()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = models.resolve(chosen.model)
        if chosen.quick:
            model = shrunk(model, folder / "model")
        job = {"model": str(model), "dtype": chosen.dtype, "threads": chosen.threads}
        sides = measure(chosen, job, folder, 1 if chosen.quick else chosen.updates)
    print(f"{'':20}{'s an update':>12}{'rollout':>9}{'learning':>10}{'CPU s':>8}{'new tokens':>12}{'peak GiB':>10}")
    for side in sides:
        times = [middle(values)["median"] for values in (side.seconds, side.rollout, side.learning, side.cpu)]
        print(
            f"{side.name:20}{times[0]:12.2f}{times[1]:9.2f}{times[2]:10.2f}{times[3]:8.1f}{max(side.tokens):12d}"
            f"{side.peak_gib:10.2f}"
        )
    finish(chosen, with_trl(before, chosen), {side.name: side.told() for side in sides}, verdicts(chosen, sides))


def with_trl(before: dict[str, Any], chosen: argparse.Namespace) -> dict[str, Any]:
    """The conditions with the version of TRL that lies in its folder."""
    packages = dict(before["packages"])
    if chosen.trl is not None:
        found = [path.name.split("-")[1] for path in chosen.trl.glob("trl-*.dist-info")]
        packages["trl"] = found[0].removesuffix(".dist") if found else package_version("trl")
    return before | {"packages": packages}


def verdicts(chosen: argparse.Namespace, sides: list[Side]) -> list[Verdict]:
    """Ours over theirs, pair by pair in the order of the turns."""
    if chosen.trl is None:
        print("TRL was not measured: --trl names no folder. See --help for the command that installs it.")
        return []
    *ours, theirs = sides
    found = []
    for side in ours:
        shares = [a / b for a, b in zip(side.seconds, theirs.seconds, strict=True)]
        print(f"{side.name}: share of TRL's time in each turn: {', '.join(f'{share:.3f}' for share in shares)}")
        found.append(Verdict(f"{side.name}: share of TRL's time", middle(shares)["median"], "at most", SHARE))
    return found


if __name__ == "__main__":
    main()
