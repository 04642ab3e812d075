"""What credit costs: CPU of every rule on a million steps, on one core.

    python benchmarks/credit.py [--quick] [--out benchmarks/results/credit.json]

20,000 trajectories of 50 steps in groups of 8, random rewards, lengths and 1,000 anchors a table.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from conditions import conditions
from support.results import Verdict, finish, middle, options

from agentrl.batch import Doubles, StepTable
from agentrl.credit.rules import AnchorCredit, EpisodeCredit, StepReturnCredit, WeightedSum
from agentrl.credit.turns import StepGAE, TurnCredit

RULES: dict[str, Callable[[StepTable], Doubles]] = {
    "grpo": EpisodeCredit(),
    "rloo": EpisodeCredit(scale="none", baseline="leave_one_out"),
    "step_return": StepReturnCredit(),
    "gigpo": WeightedSum(((1.0, EpisodeCredit()), (1.0, AnchorCredit()))),
    "igpo": TurnCredit(),
    "steppo": StepGAE(),
}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    before = conditions()
    batch = table(2_000 if chosen.quick else 20_000, 50)
    seconds: dict[str, list[float]] = {name: [] for name in RULES}
    for _ in range(2 if chosen.quick else chosen.repeats):
        for name, rule in RULES.items():
            began = time.process_time()
            rule(batch)
            seconds[name].append(time.process_time() - began)
    measured = {name: middle(found) for name, found in seconds.items()}
    for name, found in measured.items():
        print(f"{name:14}{found['median']:8.3f} s of CPU for {len(batch):,} steps")
    verdicts = [Verdict(f"credit of {name}", found["median"], "below", 2.0, "s") for name, found in measured.items()]
    finish(chosen, before, {"cpu_seconds": measured, "steps": len(batch)}, verdicts)


def table(trajectories: int, steps: int) -> StepTable:
    rng, size = np.random.default_rng(0), trajectories * steps
    trajectory = np.repeat(np.arange(trajectories, dtype=np.int32), steps)
    flags = np.zeros(size, np.bool_)
    return StepTable(
        trajectory=trajectory,
        group=trajectory // 8,
        index=np.tile(np.arange(steps, dtype=np.int32), trajectories),
        step=np.arange(size, dtype=np.int32),
        reward=rng.random(size),
        anchor=rng.integers(0, 1000, size).astype(np.int32),
        length=rng.integers(1, 50, size).astype(np.int32),
        terminated=flags,
        truncated=flags,
        error=flags,
        tasks=tuple(str(number) for number in range(trajectories // 8)),
        scores={},
        value=rng.random(size),
    )


if __name__ == "__main__":
    main()
