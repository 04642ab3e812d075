"""The state of a run or an evaluation, read from its folder beside whoever writes it: alive or not, waiting for what.

Nothing is written and no lock is taken; only a run that is stuck is asked by a signal where it stands.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agentrl.config import load_config
from agentrl.errors import StoreError
from agentrl.evaluation.result import MANIFEST, load_manifest, load_result
from agentrl.runs.pulse import EVERY, Pulse, alive, read_pulse, stacks_of
from agentrl.store.reader import FolderReader
from agentrl.training.health import health_of
from agentrl.training.metrics import read_metrics

STUCK = 5 * EVERY
"Seconds without a beat after which a living process is held up by something."
STILL = 120.0
"Seconds in which no episode moved, worth a word."
CALLS = 12
"Of the stack of a stuck run that are shown."
RECIPE = "config.toml"

State = Literal["running", "stuck", "killed", "elsewhere", "complete", "stopped"]


@dataclass(frozen=True, slots=True)
class RunState:
    """What there is to know of a folder."""

    folder: str
    state: State
    words: str
    "The same as a sentence, and what to do."
    command: str
    "What goes on with it; empty where it is complete or alive, or where the folder does not say."
    batch: int
    batches: int | None
    "None where it is no training run."
    checkpoint: str
    "The last one; empty where there is none."
    episodes: Mapping[str, int]
    "By their state in the ledger."
    outcomes: Mapping[str, int]
    metrics: Mapping[str, Any] | None
    "The last line of `metrics.jsonl`."
    health: Sequence[str]
    pulse: Pulse | None
    beat_age: float | None
    "Seconds since the last beat."
    stands: Sequence[str]
    "Where the main thread of a stuck run stands, innermost call first."
    disk_free: int
    "Bytes, where the folder is."


def look_at(folder: Path, now: float | None = None) -> RunState:
    """Raises `StoreError` where the folder holds no run and no evaluation."""
    with FolderReader(folder) as reader:
        episodes = dict(reader.query("SELECT state, count(*) FROM trajectories GROUP BY state"))
        outcomes = dict(reader.query("SELECT outcome, count(*) FROM trajectories WHERE payload IS NOT NULL GROUP BY 1"))
        head = reader.query("SELECT checkpoint FROM head")
    lines = read_metrics(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else []
    pulse = read_pulse(folder)
    age = None if pulse is None else (time.time() if now is None else now) - pulse.time
    batch = int(lines[-1]["batch"]) if lines else 0
    done, batches, command = _asked(folder, batch, ended=bool(episodes) and "issued" not in episodes)
    state = _state(pulse, age, done=done)
    return RunState(
        folder=str(folder),
        state=state,
        words=_words(state, pulse, age),
        command=command if state in ("killed", "stopped") else "",
        batch=batch,
        batches=batches,
        checkpoint=str(head[0][0]) if head else "",
        episodes=episodes,
        outcomes=outcomes,
        metrics=lines[-1] if lines else None,
        health=health_of(lines),
        pulse=pulse,
        beat_age=age,
        stands=stacks_of(folder, pulse) if pulse is not None and state == "stuck" else (),
        disk_free=shutil.disk_usage(folder).free,
    )


def report(state: RunState) -> list[str]:
    """For a terminal, a line a fact."""
    lines = [f"state    {state.words}"]
    if state.batches is not None:
        checkpoint = f", checkpoint {state.checkpoint}" if state.checkpoint else ", no checkpoint yet"
        # A run goes on with more batches than its recipe has; the recipe alone then asks for fewer than there are.
        of = f"of {state.batches} done" if state.batch <= state.batches else f"done, {state.batches} asked for last"
        lines.append(f"batches  {state.batch} {of}{checkpoint}")
    lines.append(f"episodes {_counts(state.episodes)}")
    if state.outcomes:
        lines.append(f"outcomes {_counts(state.outcomes)}")
    if state.pulse is not None:
        lines += _waits(state.pulse, live=state.state in ("running", "elsewhere"))
    if state.metrics is not None:
        lines.append(f"metrics  {_measured(state.metrics)}")
    lines += [f"health   {line}" for line in state.health or ["ok"]] if state.metrics is not None else []
    lines += [f"stands   {line}" for line in state.stands[:CALLS]]
    lines.append(f"disk     {state.disk_free / (1 << 30):.1f} GiB free")
    if state.command:
        lines.append(f"go on    {state.command}")
    return lines


def _asked(folder: Path, batch: int, *, ended: bool) -> tuple[bool, int | None, str]:
    """Whether all is done that was asked for, the batches of a training run, and the command that goes on.

    Other folders, such as that of continued episodes, ask for no more than what they issued: whether that `ended`.
    """
    recipe = folder / RECIPE
    if recipe.is_file():
        batches = load_config(recipe).training.batches
        return batch >= batches, batches, f"agentrl train {recipe} --run-folder {folder}"
    if not (folder / MANIFEST).is_file():
        return ended, None, ""
    command = load_manifest(folder).command
    try:
        return not load_result(folder).stopped, None, command
    except StoreError:
        return False, None, command


def _state(pulse: Pulse | None, age: float | None, *, done: bool) -> State:
    if pulse is None or age is None:
        return "complete" if done else "stopped"
    there = alive(pulse)
    if there is None:
        return "elsewhere"
    if not there:
        return "killed"
    return "stuck" if age > STUCK else "running"


def _words(state: State, pulse: Pulse | None, age: float | None) -> str:
    if pulse is None or age is None:
        ended = {
            "complete": "complete: everything that was asked for is done",
            "stopped": "not running: it was stopped, ended with an error or never began",
        }
        return ended[state]
    doing = f"{pulse.doing} for {pulse.doing_for:.0f} s"
    match state:
        case "running":
            still = pulse.progress is not None and pulse.progress > STILL
            quiet = f"; no episode has moved for {pulse.progress:.0f} s" if still else ""
            return f"running: process {pulse.pid}, {doing} (seen {age:.0f} s ago){quiet}"
        case "stuck":
            return (
                f"stuck: process {pulse.pid} lives and gave no sign for {age:.0f} s; it was {doing}. Its event loop is "
                "held up: a method of an environment that runs in the loop, or a machine out of memory."
            )
        case "elsewhere":
            return f"on another machine: {pulse.host}, process {pulse.pid}, {doing} (seen {age:.0f} s ago)"
        case _:
            return (
                f"killed: process {pulse.pid} is gone; {age:.0f} s ago it was {doing}. Nothing that was done is lost."
            )


def _waits(pulse: Pulse, *, live: bool) -> list[str]:
    when = "waits   " if live else "waited  "
    if not pulse.episodes:
        lines = [f"{when} no episode is in flight"]
    else:
        lines = [f"{when} {pulse.episodes} episodes: {_counts(pulse.stages)}"]
        lines += [f"         {one.episode}  {one.stage}  {one.seconds:.1f} s" for one in pulse.longest]
        if pulse.episodes > len(pulse.longest):
            lines.append(f"         ... and {pulse.episodes - len(pulse.longest)} that wait less long")
    if pulse.engine is not None:
        engine = pulse.engine
        well = "ok" if engine.ok else "NOT ok"
        detail = f": {engine.detail}" if engine.detail else ""
        lines.append(f"engine   {well}{detail}, {engine.running} running, {engine.waiting} waiting")
    return lines


def _counts(found: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(found.items(), key=lambda one: -one[1])) or "none"


def _measured(line: Mapping[str, Any]) -> str:
    told = [f"batch {line['batch']}"]
    for name in ("reward", "success", "flat_groups", "truncated", "staleness", "mismatch", "entropy"):
        if isinstance(line.get(name), float):
            told.append(f"{name} {line[name]:.4g}")
    if isinstance(line.get("time"), float):
        told.append(f"{time.time() - line['time']:.0f} s ago")
    return ", ".join(told)
