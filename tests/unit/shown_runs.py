"""A small run as the viewer finds it, written by the real ledger: a branch, a fault, markup, numbers of an update."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from builders import make_step

from agentrl.evaluation.harness import Attempt, Evaluation
from agentrl.store.ledger import Ledger
from agentrl.store.records import Trained
from agentrl.training.metrics import MetricsLog
from agentrl.types import Action, Message, Observation, Status, Step, Task, Timings, ToolCall, Trajectory

MARKUP = '<img src=x onerror="alert(1)"></script><script>alert(2)</script> \u2028 & more'
RECIPE = """
name = "shown"
seed = 3
[environment]
name = "keydoor"
size = 5
[model]
name = "tiny"
[rollout]
group_size = 3
[training]
batches = 2
"""
VOCABULARY = {"<pad>": 0, "<end>": 1, "door": 2, "go": 3, "north": 4, "open": 5}


def shown_step(trajectory: str, index: int, *, last: bool = False, reward: float = 0.0) -> Step:
    """A call of `open` whose argument and surroundings hold markup."""
    return replace(
        make_step(trajectory, index, reward=reward, last=last, tokens=(3, 4), logprobs=(-0.5, -1.5), version=7),
        action=Action("", (ToolCall("open", {"what": MARKUP, "x": 30, "y": 10}),)),
        observation=Observation((Message("tool" if index else "user", f"room {index} {MARKUP}", name="open"),)),
        scores={"success": reward} if last else {"environment": 0.0},
        timings=Timings(started=100.0 + index, waiting=0.1, model=0.2, environment=0.3, reward=0.4),
    )


def shown_trajectory(name: str, group: str, *, reward: float = 0.0, status: Status = Status.OK) -> Trajectory:
    steps = (shown_step(name, 0), shown_step(name, 1, last=True, reward=reward))
    final = Observation((Message("tool", f"the end {MARKUP}", name="open"),))
    return Trajectory(name, Task(f"task-{group}", "keydoor"), group, steps, status, final=final)


def branch_of(trunk: Trajectory, name: str) -> Trajectory:
    """It shares the first step of `trunk`."""
    last = replace(shown_step(name, 1, last=True), previous=trunk.steps[0].id, context=trunk.steps[0].id)
    return replace(trunk, id=name, steps=(trunk.steps[0], last), forked_from=trunk.steps[0].id)


def write_shown(folder: Path, *, wins: tuple[str, ...] = ("g1-0",)) -> None:
    """Two groups in two batches: `g1` with a branch, `g2` with a fault that was not trained on."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(RECIPE)
    write_tokenizer(folder / "warm_start" / "model")
    with Ledger(folder) as ledger:
        for place, group in enumerate(("g1", "g2")):
            names = [f"{group}-{member}" for member in range(2)]
            ledger.issue(place, group, Task(f"task-{group}", "keydoor"), names)
            ledger.finish(*[shown_trajectory(n, group, reward=float(n in wins)) for n in names[: 2 - place]])
        fault = shown_trajectory("g2-1", "g2", status=Status.ENVIRONMENT_ERROR)
        ledger.finish(branch_of(shown_trajectory("g1-0", "g1"), "g1-2"), replace(fault, error="100% of it broke"))
        ledger.batched(1, ["g1-0", "g1-1", "g1-2"])
        ledger.batched(2, ["g2-0"])
        values = np.array([0.5, 0.5, 1.5, 2.5], np.float32)
        learner = np.array([-0.25, -1.5, np.nan, -1.0], np.float32)
        ledger.keep_trained(0, [Trained("g1-0", 0, values, np.array([0.1, 0, 0.1, 0.1], np.float32), learner)])
    with MetricsLog(folder / "metrics.jsonl") as log:
        log.write(1, {"update": 1, "reward": 0.25, "reward_low": 0.1, "reward_high": 0.4, "success": 0.25, "calls": 2})
        log.write(2, {"update": 1, "reward": 0.5, "reward_low": 0.2, "reward_high": 0.8, "success": 0.5, "calls": 2})
    for update, won in ((0, 2), (1, 18)):
        attempts = tuple(Attempt(f"t{n}", 0, "ok", float(n < won), n < won, 2, 4, 2, 0) for n in range(20))
        Evaluation("keydoor", 1.0, update, attempts).save(folder / "evaluations" / f"update-{update:06d}-t-1.json")


def write_tokenizer(folder: Path) -> None:
    """Of words, as `agentrl.tiny` makes them."""
    folder.mkdir(parents=True)
    model = {"type": "WordLevel", "vocab": VOCABULARY, "unk_token": "<pad>"}
    (folder / "tokenizer.json").write_text(json.dumps({"model": model, "decoder": None, "added_tokens": []}))
